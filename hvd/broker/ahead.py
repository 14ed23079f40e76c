"""What a spare that takes over from a driver domain would ask first, carried out before it asks.

It is let run with the answers: its clients' devices watched and read, and as its own what its predecessor had of its
clients: their pages, their channels, the media of their disks. All that is asked for by the same hypercalls, in the
domain's name, when nothing of the dead one's is left. What is refused now the spare asks for itself, and is told why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgpack

from hvd.broker import devices
from hvd.broker.answers import Ahead, Descriptors
from hvd.broker.dispatch import handle
from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, unpack_call
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.multicall import BRINGS

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor

DEVICES_MAX = 16
"""As many as a driver domain takes up with its first hypercall."""
DESCRIPTORS_MAX = 2 * DESCRIPTORS_PER_MESSAGE
"""What a spare is let run with: of five disks. An outbox takes as many."""
BYTES_MAX = 16_384
"""Of one answer; and of a message, beside the answer that is its last."""


def carry_out(h: Hypervisor, domain: Domain, now_ns: int) -> None:
    """Ask for all of it; what was answered is kept in the domain's record until it is ready."""
    left, ahead = DESCRIPTORS_MAX, []
    for call in (*_looks(h, domain), *map(unpack_call, domain.estate)):
        if BRINGS.get(type(call), 0) > left:
            continue
        try:
            answer = handle(h, domain.domid, call, now_ns)
        except Refused:
            continue
        left -= len(answer.descriptors)
        if len(msgpack.packb(answer.value)) <= BYTES_MAX:
            ahead.append((pack_call(call), answer.value, answer.descriptors))
    domain.estate, domain.ahead = (), tuple(ahead)


def _looks(h: Hypervisor, domain: Domain) -> Iterator[m.StoreWatch | m.StoreReadAll]:
    """What it asks of the store for each device that it serves."""
    for kind, domid, devid in devices.served(h.store, domain, h.client_devices(domain))[:DEVICES_MAX]:
        state = f"/local/domain/{domid}/device/{kind}/{devid}/state"
        yield m.StoreWatch(state, state, True)
        yield m.StoreReadAll(f"backend/{kind}/{domid}/{devid}")


def messages(ahead: Ahead) -> Iterator[tuple[list[list[Any]], Descriptors]]:
    """All that was answered ahead as it is told: [call, value, how many descriptors], no more than a message takes.

    At least one, which may be empty.
    """
    entries: list[list[Any]] = []
    descriptors: Descriptors = ()
    size = 0
    for call, value, brought in ahead:
        if size > BYTES_MAX or len(descriptors) + len(brought) > DESCRIPTORS_PER_MESSAGE:
            yield entries, descriptors
            entries, descriptors, size = [], (), 0
        entries.append([call, value, len(brought)])
        descriptors += brought
        size += len(call) + len(msgpack.packb(value))
    yield entries, descriptors
