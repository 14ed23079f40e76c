"""A cluster's state as Prometheus metrics, asked of the broker at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hvd.toolstack.cluster import Cluster
from hvd.toolstack.cluster.errors import NotRunning
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId

DOMAIN = ("domain", "domid")
Rows = list[dict[str, Any]]


class ClusterCollector(Collector):
    """One scrape is some five hypercalls, and a few more where there are many domains."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registration asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            rows: Rows = list(self._cluster.call(m.DomctlList()))
            yield from _machine(self._cluster.info())
            yield from _lives(rows)
            yield from _quotas(self._cluster.quotas())
            yield from self._traffic(rows)
        except NotRunning:
            return  # whoever serves us is ending

    def _traffic(self, rows: Rows) -> list[Metric]:
        names = {row["domid"]: row["name"] for row in rows}
        sent = CounterMetricFamily("hvd_event_channel_events_sent",
                                   "Events that a domain has sent through a port since it bound it.",
                                   labels=[*DOMAIN, "port", "remote_domid"])  # fmt: skip
        requests = CounterMetricFamily("hvd_ring_requests", "Requests put on a device's ring (modulo 2**32).",
                                       labels=[*DOMAIN, "device"])  # fmt: skip
        responses = CounterMetricFamily("hvd_ring_responses", "Responses put on a device's ring (modulo 2**32).",
                                        labels=[*DOMAIN, "device"])  # fmt: skip
        for row in self._parts(m.SysctlEvtchns):
            if row["domid"] in names and row["sent"] is not None:
                whose = [names[row["domid"]], str(row["domid"])]
                sent.add_metric([*whose, str(row["port"]), str(row["remote_domid"])], row["sent"])
        for row in self._parts(m.SysctlRings):
            if row["domid"] in names and row["req_prod"] is not None:
                whose = [names[row["domid"]], str(row["domid"]), f"{row['kind']}/{row['devid']}"]
                requests.add_metric(whose, row["req_prod"])
                responses.add_metric(whose, row["rsp_prod"])
        return [sent, requests, responses]

    def _parts(self, listing: Callable[[DomId], Any]) -> Iterator[dict[str, Any]]:
        """All rows of a listing, part by part."""
        first: DomId | None = DOM0
        while first is not None:
            part = self._cluster.call(listing(first))
            yield from part["rows"]
            first = part["next"]


def _machine(info: dict[str, Any]) -> Iterator[Metric]:
    yield CounterMetricFamily("hvd_broker_restarts", "How often the hypervisor was replaced.", info["broker_restarts"])
    for name, key, text in (
        ("hvd_domains", "domains", "Domains, whatever their state."),
        ("hvd_descriptors_held", "descriptors", "Descriptors that the machine holds for the hypervisor."),
        ("hvd_granted_pages", "granted_pages", "Pages that domains grant."),
        ("hvd_grant_mappings", "mappings", "Mappings of others' grants."),
        ("hvd_event_channel_ports", "ports", "Ports in use."),
    ):
        yield GaugeMetricFamily(name, text, info[key])
    yield GaugeMetricFamily("hvd_uptime_seconds", "Since the machine booted.", info["uptime_ns"] / 1e9)


def _lives(rows: Rows) -> Iterator[Metric]:
    ready = GaugeMetricFamily("hvd_domain_ready", "1 while a domain does what it is for.", labels=DOMAIN)
    restarts = CounterMetricFamily("hvd_domain_restarts", "Incarnations after the first.", labels=DOMAIN)
    denials = CounterMetricFamily("hvd_policy_denials", "What the security policy denied a domain.", labels=DOMAIN)
    for row in rows:
        ready.add_metric(_whose(row), int(row["ready"]))
        restarts.add_metric(_whose(row), row["restarts"])
        denials.add_metric(_whose(row), row["denials"])
    yield from (ready, restarts, denials)


def _quotas(rows: Rows) -> Iterator[Metric]:
    used = GaugeMetricFamily("hvd_quota_used", "What a domain has of a resource.", labels=[*DOMAIN, "resource"])
    limit = GaugeMetricFamily("hvd_quota_limit", "The most that it may have.", labels=[*DOMAIN, "resource"])
    for row in rows:
        for resource, (has, most) in row["quotas"].items():
            used.add_metric([*_whose(row), resource.replace(" ", "_")], has)
            limit.add_metric([*_whose(row), resource.replace(" ", "_")], most)
    yield from (used, limit)


def _whose(row: dict[str, Any]) -> list[str]:
    return [row["name"], str(row["domid"])]
