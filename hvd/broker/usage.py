"""How much each domain has of what there is only so much of, beside how much it may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvd.transport.limits import EVENTS_PENDING_MAX, EXTENTS_MAX, GRANTS_MAX, MAPTRACK_MAX, PORTS_MAX, WATCHDOGS_MAX

if TYPE_CHECKING:
    from hvd.broker.domain import Domain
    from hvd.broker.hypervisor import Hypervisor


def of(hypervisor: Hypervisor, domain: Domain) -> dict[str, tuple[int, int]]:
    """(in use, at most) by name: the hypervisor's tables, then the store's."""
    dom = domain.domid
    table, queue = hypervisor.grants.tables.get(dom), hypervisor.upcalls.get(dom)
    limits, store = hypervisor.store.limits(dom), hypervisor.store.usage(dom)
    return {
        "event channels": (len(hypervisor.channels.ports.get(dom, ())), PORTS_MAX),
        "granted pages": (len(table.refs) if table else 0, GRANTS_MAX),
        "extents": (len(table.extents) if table else 0, EXTENTS_MAX),
        "mappings": (len(table.mappings) if table else 0, MAPTRACK_MAX),
        "watchdogs": (sum(map(bool, domain.watchdogs.values())), WATCHDOGS_MAX),
        "events to take": (len(queue.unsent) + len(queue.unacknowledged) if queue else 0, EVENTS_PENDING_MAX),
        "store nodes": (store.nodes, limits.nodes_max),
        "store bytes": (store.bytes, limits.memory_bytes_max),
        "watches": (store.watches, limits.watches_max),
        "transactions": (store.transactions, limits.transactions_max),
    }


def describe(hypervisor: Hypervisor) -> list[dict[str, Any]]:
    """Every domain's."""
    return [_described(hypervisor, domain) for domain in hypervisor.domains.values()]


def _described(hypervisor: Hypervisor, domain: Domain) -> dict[str, Any]:
    quotas = {name: list(each) for name, each in of(hypervisor, domain).items()}
    return {"domid": domain.domid, "name": domain.name, "quotas": quotas}
