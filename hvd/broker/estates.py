"""What a dead driver domain had of its clients, as the hypercalls by which its spare gets the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvd.broker.answers import Calls
from hvd.broker.domain import Domain
from hvd.broker.event_channels import PortState
from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.ids import DomId

if TYPE_CHECKING:
    from hvd.broker.lives import Lives

BOUND_SIDE = 1
"""Of a channel that the other end has allocated, and holds open when we are gone."""


def estate_of(lives: Lives, domain: Domain) -> Calls:
    """Packed, client by client; to be asked before it is withdrawn."""
    dom = domain.domid
    calls: list[tuple[DomId, Any]] = [
        (device.client, m.PhysdevOpenMedium(device.client, device.kind, device.devid))
        for device in lives.media.opened if device.backend == dom
    ]  # fmt: skip
    extents = {mapping.extent.id: mapping for mapping in lives.grants.tables[dom].mappings.values()}
    for mapping in extents.values():  # one of each: it brings the descriptor, and others of the same need none
        owner, whole = mapping.extent.owner, mapping.count > 1
        calls.append((owner, m.GnttabMap(owner, mapping.ref, 0 if whole else 1, not mapping.extent.readonly)))
    for port in lives.channels.ports[dom].values():
        if port.state is PortState.INTERDOMAIN and port.side == BOUND_SIDE and port.remote_port is not None:
            calls.append((port.remote_dom, m.EvtchnBindInterdomain(port.remote_dom, port.remote_port)))
    return tuple(pack_call(call) for _, call in sorted(calls, key=lambda entry: entry[0]))
