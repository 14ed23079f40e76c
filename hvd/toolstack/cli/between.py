"""The commands that list what there is between domains, with rates: evtchn, grants, ring."""

from __future__ import annotations

import time
from typing import Any

from hvd.toolstack.cli.output import print_json, print_table
from hvd.toolstack.cli.top import DEVICE_HEADS, device_rows, number, right
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.monitor.sample import Sample, take_sample
from hvd.toolstack.monitor.watcher import Watcher

EVTCHN_HEADS = ("Domain", "Port", "Status", "Leads to", "Sent/s")
GRANT_HEADS = ("Domain", "Granted to", "Pages", "Mode", "Refs", "Mapped by", "Maps/s")


def evtchn(names: list[str], *, seconds: float, as_json: bool) -> None:
    """Ports, and how often each was rung in so many seconds of tracing; 0: nothing is traced."""
    with Cluster.attach() as cluster:
        chosen, called = _chosen(cluster, names)
        sample = take_sample(cluster, seconds) if seconds else None
        rows = [row | {"sent_per_s": _sent(row, sample)} for row in cluster.event_channels() if row["domid"] in chosen]
    if as_json:
        print_json(rows)
        return
    shown = [
        (called.get(row["domid"], "?"), str(row["port"]), str(row["status"]), _leads_to(row, called),
         number(row["sent_per_s"]))
        for row in rows
    ]  # fmt: skip
    print_table(EVTCHN_HEADS, right(shown, EVTCHN_HEADS, 4))


def grants(names: list[str], *, seconds: float, as_json: bool) -> None:
    """Pages that domains let others map, who has, and how often they were mapped in so many seconds; 0: not looked."""
    with Cluster.attach() as cluster:
        chosen, called = _chosen(cluster, names)
        before = {(row["domid"], row["extent"]): row["maps"] for row in cluster.grants()} if seconds else {}
        time.sleep(seconds)
        found = [row for row in cluster.grants() if row["domid"] in chosen]
    rows = [row | {"maps_per_s": _mapped(row, before, seconds)} for row in found]
    if as_json:
        print_json(rows)
        return
    shown = [
        (called.get(row["domid"], "?"), called.get(row["peer"], str(row["peer"])), str(row["pages"]).rjust(5),
         "read-only" if row["readonly"] else "writable", _runs(row["refs"]), _mappers(row["mapped"], called),
         number(row["maps_per_s"]))
        for row in rows
    ]  # fmt: skip
    print_table(GRANT_HEADS, right(shown, GRANT_HEADS, 6))


def ring(names: list[str], *, seconds: float, as_json: bool) -> None:
    """Devices' rings: how many requests went through in so many seconds, and what is in them."""
    with Cluster.attach() as cluster:
        chosen, _ = _chosen(cluster, names)
        seen = Watcher(cluster).look(seconds)
    seen.devices[:] = [device for device in seen.devices if device.domid in chosen]
    if as_json:
        print_json(seen.as_dict()["devices"])
    else:
        print_table(DEVICE_HEADS, right(device_rows(seen), DEVICE_HEADS, 3))


def _chosen(cluster: Cluster, names: list[str]) -> tuple[set[int], dict[int, str]]:
    """The domids meant, and what every domain is called."""
    called = {int(info.domid): info.name for info in cluster.infos().values()}
    return {int(cluster.domain(name).domid) for name in names} or set(called), called


def _sent(row: dict[str, Any], sample: Sample | None) -> float | None:
    return None if sample is None else round(sample.notified[row["domid"], row["port"]] / sample.seconds, 1)


def _mapped(row: dict[str, Any], before: dict[tuple[int, int], int], seconds: float) -> float | None:
    """Of an extent that came meanwhile, all that it was mapped."""
    return round((row["maps"] - before.get((row["domid"], row["extent"]), 0)) / seconds, 1) if seconds else None


def _leads_to(row: dict[str, Any], called: dict[int, str]) -> str:
    if row["virq"] is not None:
        return f"virq {row['virq']}"
    peer = called.get(row["remote_domid"], str(row["remote_domid"]))
    return peer if row["remote_port"] is None else f"{peer}:{row['remote_port']}"


def _runs(refs: list[list[int]]) -> str:
    return ", ".join(str(first) if count == 1 else f"{first}-{first + count - 1}" for first, count in refs) or "none"


def _mappers(mapped: list[list[int]], called: dict[int, str]) -> str:
    return ", ".join(dict.fromkeys(called.get(domid, str(domid)) for domid, _, _ in mapped)) or "nobody"
