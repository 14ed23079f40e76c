"""A driver domain's first moments, gone through by its spare while it stands by.

When a spare takes over, all that it runs would run for the first time: each page of the zygote's that it writes to is
copied then, each table is made, while guests wait. So it has served a disk by then: one of a page in memory, whose
frontend and hypervisor are here too, on the other end of a socket. Nothing of it is the domain's, or is left.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from hvd.domains.driver_domain import DriverDomain, Key
from hvd.domains.hypercalls import Hypercalls
from hvd.domains.peer_runs import RUNS
from hvd.domains.xenbus import FOR_INCARNATION, SESSION
from hvd.transport import messages as m
from hvd.transport.call_words import CallWords
from hvd.transport.channels import create_channel
from hvd.transport.codec import pack_call, pack_reply
from hvd.transport.descriptors import send_message, socket_pair
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import Requests
from hvd.transport.ids import DOM0, GrantRef, Port
from hvd.transport.pages import PAGE_SIZE, Extent, create_extent
from hvd.transport.protocols.block import PROTOCOL, REQUEST_SIZE, RESPONSE_SIZE, SECTOR_SIZE, Operation
from hvd.transport.rings import RING_CHECKS, FrontRing
from hvd.transport.upcalls import EVENT, REPLY, RUN, UpcallReceiver, UpcallsBroken
from hvd.transport.xenbus_state import XenbusState

if TYPE_CHECKING:
    from hvd.domains.runtime import Runtime

KEYS: list[Key] = [("vbd", "0", "0"), ("vbd", "0", "1")]
"""The ring of the first is published; for that of the second its backend waits, and so asks for nothing else yet."""
RING, DATA = GrantRef(8), GrantRef(9)
"""Beside each other in one extent."""
PORT = Port(9)
REQUEST = struct.Struct("<BBH4xQQIBBH")
"""blkif_request of one segment (transport/native/blkif.hpp)."""
SECTORS = PAGE_SIZE // SECTOR_SIZE


class Props:
    """What is made of memory, pipes and sockets: before the sandbox is on, in which a domain can make none of it."""

    def __init__(self) -> None:
        """OSError when the host refuses."""
        with ExitStack() as made:
            self.ours, self.theirs = socket_pair()
            made.callback(self.ours.close)
            made.callback(self.theirs.close)
            self.image = create_extent(1, "hvd-rehearsal")
            made.callback(os.close, self.image)
            self.pages = create_extent(2, "hvd-rehearsal")
            made.callback(os.close, self.pages)
            self.channel = create_channel()
            made.callback(self.channel.close)
            self._made = made.pop_all()

    def close(self) -> None:
        self._made.close()


def rehearse(runtime: Runtime, props: Props) -> bool:
    """Serve a request of a disk that there is not, and whether it was answered; the props are used up."""
    with suppress(HvdError, OSError, UpcallsBroken), ExitStack() as opened:  # no room for it: it does without
        opened.callback(props.close)
        pages = Extent.map(props.pages, 2, writable=True)
        opened.callback(pages.close)
        ring = FrontRing(pages.page(0), REQUEST_SIZE, RESPONSE_SIZE, checked=True)
        opened.callback(ring.close)
        ring.init()
        ring.push(REQUEST.pack(Operation.READ, 1, 0, 0, 0, DATA, 0, SECTORS - 1, 0))
        upcalls, words = UpcallReceiver(props.ours), CallWords(props.channel.page_fd)
        opened.callback(words.close)
        stage = runtime.on_stage(upcalls, _Hypercalls(upcalls, words, props.theirs))
        opened.callback(stage.waiter.close)
        opened.callback(stage.give_back_ahead)
        send_message(props.theirs, [RUN, [list(key) for key in KEYS], _answers()], _descriptors(props))
        driver_domain = DriverDomain(stage, _ignore)
        opened.callback(driver_domain.close)
        stage.hypercalls.post(m.DomainReady())
        send_message(props.theirs, [EVENT, 1, _state(KEYS[0]), _state(KEYS[0]), _published(runtime)])
        stage.wait(0)
        return ring.pop() is not None
    return False


class _Hypercalls(Hypercalls):
    """Each finds an answer there before it is asked: that it was carried out, whatever was not answered ahead."""

    def __init__(self, upcalls: UpcallReceiver, words: CallWords, hypervisor: socket.socket) -> None:
        super().__init__(upcalls, _no_client, words)
        self._hypervisor = hypervisor

    def _call(self, message: Any) -> Any:
        entries = len(message.calls) if isinstance(message, m.Multicall) else 0
        value: Any = [[0, {}, 0]] * entries if entries else {} if isinstance(message, m.StoreReadAll) else None
        send_message(self._hypervisor, [REPLY, pack_reply(self.requests.sequence + 1, 0, value, 0)])
        return super()._call(message)


def _answers() -> list[list[Any]]:
    """What is answered ahead: [call, value, how many descriptors] each."""
    entries: list[tuple[Any, Any, int]] = []
    for number, key in enumerate(KEYS):
        state, (kind, domid, devid) = _state(key), key
        entries.append((m.StoreWatch(state, state, True), None, 0))
        entries.append((m.StoreReadAll(f"backend/{kind}/{domid}/{devid}"), _offered(devid), 0))
        entries.append((m.PhysdevOpenMedium(DOM0, kind, number), "", 1))
    mapped = {"extent": 1, "pages": 2, "count": 1, "readonly": False}
    entries.append((m.GnttabMap(DOM0, RING, 1, True), mapped | {"handle": 1, "ref": RING, "first_page": 0}, 1))
    entries.append((m.GnttabMap(DOM0, DATA, 0, True), mapped | {"handle": 2, "ref": DATA, "first_page": 1}, 0))
    entries.append((m.EvtchnBindInterdomain(DOM0, PORT), {"port": PORT, "side": 1}, 3))
    return [[pack_call(call), value, descriptors] for call, value, descriptors in entries]


def _descriptors(props: Props) -> tuple[int, ...]:
    """What comes with them, in order."""
    end = props.channel.ends[1]
    return (*[props.image] * len(KEYS), props.pages, props.channel.page_fd, end.rx, end.tx)


def _state(key: Key) -> str:
    kind, domid, devid = key
    return f"/local/domain/{domid}/device/{kind}/{devid}/state"


def _offered(devid: str) -> dict[str, bytes]:
    """The backend's directory, as the toolstack writes it."""
    return {"frontend": f"/local/domain/0/device/vbd/{devid}".encode(), "params": b"rehearsal", "mode": b"w"}


def _published(runtime: Runtime) -> dict[str, bytes]:
    """The frontend's directory, as it answers an offer."""
    keys = {
        "state": str(int(XenbusState.INITIALISED)), FOR_INCARNATION: str(runtime.incarnation), SESSION: "1.1",
        "ring-ref": str(RING), "event-channel": str(PORT), "protocol": PROTOCOL, "feature-persistent": "1",
        RING_CHECKS: "1", RUNS: str(DATA),
    }  # fmt: skip
    return {name: value.encode() for name, value in keys.items()}


def _no_client(requests: Requests) -> NoReturn:
    raise AssertionError("a spare that rehearses has no endpoint")


def _ignore(text: str) -> None:
    """What a device's failure would be logged by: there is none, and nobody to tell."""
