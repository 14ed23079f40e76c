"""What there is between domains: event channels, grants, rings. For whoever looks; nothing is changed.

A listing of a large machine is read in parts: each reply has the rows of some domains, and the domid to go on from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hvd.broker import devices, network_listing
from hvd.broker.errors import Refused
from hvd.broker.event_channels import PortState
from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0, GRANT_REF_MAX, DomId, GrantRef

if TYPE_CHECKING:
    from hvd.broker.domain import Domain
    from hvd.broker.hypervisor import Hypervisor
    from hvd.transport.messages import DeviceConfig

ROWS_MAX = 128
"""After so many rows no further domain's are begun."""
NUMBER_DIGITS_MAX = 10
_RING_HEADER = struct.Struct("<IIII")
"""req_prod, req_event, rsp_prod, rsp_event (public/io/ring.h)."""
_PAGE = 4096
Row = dict[str, Any]


def event_channels(h: Hypervisor, first: DomId) -> dict[str, Any]:
    """{rows, next}: a row for each port, {domid, port, status, remote_domid, remote_port, virq, sent}.

    `sent`: the events that the domain says it has sent through it; None while it is not bound to another domain's.
    """
    return _in_parts(h, first, _ports)


def grants(h: Hypervisor, first: DomId) -> dict[str, Any]:
    """{rows, next}: a row for each extent, {domid, peer, extent, pages, readonly, refs, mapped}.

    `refs` are runs [ref, count] that are granted, `mapped` are [domid, ref, count] of those who have mapped them.
    """
    return _in_parts(h, first, _extents)


def rings(h: Hypervisor, first: DomId) -> dict[str, Any]:
    """{rows, next}: a row for each device that is one ring, as its shared page says now.

    {domid, kind, devid, backend, state, port, ring_ref, pages, req_prod, req_event, rsp_prod, rsp_event}; the last four
    are None before the ring is published. A domain writes these numbers: they may be any.
    """
    return _in_parts(h, first, _rings)


def vifs(h: Hypervisor, first: DomId) -> dict[str, Any]:
    """{rows, next}: a row for each vif, as `network_listing.vifs_of` has it."""
    return _in_parts(h, first, network_listing.vifs_of)


def _in_parts(h: Hypervisor, first: DomId, rows_of: Callable[[Hypervisor, Domain], Iterator[Row]]) -> dict[str, Any]:
    rows: list[Row] = []
    for domid in sorted(domid for domid in h.domains if domid >= first):
        if len(rows) >= ROWS_MAX:
            return {"rows": rows, "next": domid}
        rows.extend(rows_of(h, h.domains[domid]))
    return {"rows": rows, "next": None}


def _ports(h: Hypervisor, domain: Domain) -> Iterator[Row]:
    for port, binding in h.channels.ports.get(domain.domid, {}).items():
        yield {
            "domid": domain.domid, "port": port, "status": binding.state.name.lower(), "virq": binding.virq,
            "remote_domid": binding.remote_dom if binding.virq is None else None,
            "remote_port": binding.remote_port,
            "sent": h.hardware.events_sent(binding.channel, binding.side)
            if binding.state is PortState.INTERDOMAIN else None,
        }  # fmt: skip


def _extents(h: Hypervisor, domain: Domain) -> Iterator[Row]:
    table = h.grants.tables.get(domain.domid)
    for extent in table.extents.values() if table else ():
        yield {
            "domid": domain.domid, "peer": extent.peer, "extent": extent.id, "pages": extent.pages,
            "readonly": extent.readonly, "refs": [[run.ref, run.count] for run in extent.runs],
            "mapped": [[mapping.mapper, mapping.ref, mapping.count] for mapping in extent.mappings.values()],
            "maps": extent.maps,
        }  # fmt: skip


def _rings(h: Hypervisor, domain: Domain) -> Iterator[Row]:
    for device in domain.config.devices:
        backend = h.by_name(device.backend)
        front = devices.frontend_path(domain.domid, device)
        order = _number(h, f"{front}/ring-page-order") or 0
        ref = _number(h, f"{front}/ring-ref0" if order else f"{front}/ring-ref")
        yield {
            "domid": domain.domid, "kind": device.kind, "devid": device.devid, "name": _name(device),
            "backend": None if backend is None else backend.domid, "state": _number(h, f"{front}/state"),
            "port": _number(h, f"{front}/event-channel"), "ring_ref": ref, "pages": 1 << min(order, 4),
            **_header(h, domain.domid, ref),
        }  # fmt: skip


def _header(h: Hypervisor, dom: DomId, ref: int | None) -> dict[str, int | None]:
    names = ("req_prod", "req_event", "rsp_prod", "rsp_event")
    if ref is None or not 0 < ref <= GRANT_REF_MAX:
        return dict.fromkeys(names)
    try:
        extent, page = h.grants.page_for_copy(dom, dom, GrantRef(ref), writable=False)
    except Refused:
        return dict.fromkeys(names)
    words = h.hardware.read_extent(extent, page * _PAGE, _RING_HEADER.size)
    return dict(zip(names, _RING_HEADER.unpack(words), strict=True))


def _name(device: DeviceConfig) -> str:
    """What people call it."""
    return device.backend_keys.get("dev", f"{device.kind}/{device.devid}")


def _number(h: Hypervisor, path: str) -> int | None:
    try:
        text = h.store.read(DOM0, 0, path)
    except StoreError:
        return None
    return int(text) if len(text) <= NUMBER_DIGITS_MAX and text.isdigit() else None
