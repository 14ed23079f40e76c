"""Attacks by the descriptors of an event channel, and by ports."""

from __future__ import annotations

import contextlib
import errno
import os

from hvd.domains.guest import Guest
from hvd.domains.hostile.grants import told
from hvd.domains.hostile.messages import certificate
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, Port


def bind_all(guest: Guest, dom: str) -> str:
    """XSA-342: every port of another, those out of range, and none of ours."""
    call, bound = guest.runtime.hypercalls.call, 0
    for port in (*range(1, 40), 1023, 1024, 4096, 131_071):
        try:
            _, descriptors = call(m.EvtchnBindInterdomain(DomId(int(dom)), Port(port)))
            bound += 1
            for descriptor in descriptors:
                os.close(descriptor)
        except HypercallError as error:
            assert error.errno in (errno.EINVAL, errno.EACCES, errno.EPERM, errno.EBADMSG), error
        for message in (m.EvtchnSend(Port(port + 10)), m.EvtchnClose(Port(port + 10))):
            with contextlib.suppress(HypercallError):
                call(message)
    return f"bound {bound}"


def race_resets(guest: Guest) -> str:
    """XSA-343, XSA-344: bind, close and reset in every order, again and again."""
    call = guest.runtime.hypercalls.call
    for number in range(60):
        for _ in range(number % 4 + 1):
            value, descriptors = call(m.EvtchnAllocUnbound(DOMID_SELF, DOM0))
            for descriptor in descriptors:
                os.close(descriptor)
        for message in (m.EvtchnSend(value["port"]), m.EvtchnReset(DOMID_SELF), m.EvtchnClose(value["port"])):
            with contextlib.suppress(HypercallError):
                call(message)
    return "reset 60 times"


def stuff(guest: Guest) -> str:
    """Change the flags of a channel's pipes, fill the one that we write, and never read the other."""
    runtime, peer = guest.runtime, DomId(int(told(guest, "peer")))
    value, (page, rx, tx) = runtime.hypercalls.call(m.EvtchnAllocUnbound(DOMID_SELF, peer))
    os.set_blocking(rx, True)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(tx, b"x" * 4096)
    os.set_blocking(tx, True)
    shared = runtime.grants.share(peer, 1)
    runtime.store.write("data/ref", shared.ref)
    runtime.store.write("data/port", value["port"])
    told(guest, "go")
    shared.view[0:4] = (30).to_bytes(4, "little")
    with contextlib.suppress(OSError):
        os.set_blocking(tx, False)
        os.write(tx, b"x")
    os.close(page)
    return f"filled its pipe with {written:,} bytes"


def find_key(guest: Guest, begin: str) -> str:
    """What follows these characters wherever they stand in our memory: a key of another domain, if it is there."""
    found: set[str] = set()
    with open("/proc/self/maps", encoding="ascii") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, flags = line.split()[:2]
            first, last = (int(number, 16) for number in span.split("-"))
            if not flags.startswith("rw") or last - first > 1 << 28:
                continue
            with contextlib.suppress(OSError, OverflowError):
                memory.seek(first)
                data = memory.read(last - first)
                at = data.find(begin.encode())
                while at >= 0:
                    found.add(data[at : at + 40].decode("ascii", "replace"))
                    at = data.find(begin.encode(), at + 1)
    return f"found {len(found)}: {' '.join(sorted(found))}"


def find_own_key(guest: Guest) -> str:
    """The same search for what must be there."""
    key = bytes(certificate()["server_key"]).decode()
    return "found its own" if key in find_key(guest, key[:12]) else "did not find its own"


def flip(guest: Guest, times: str) -> str:
    """XSA-338, XSA-343: a port that is held open for another, closed and reset while that one binds it."""
    call, peer = guest.runtime.hypercalls.call, DomId(int(told(guest, "peer")))
    done = {"offered": 0, "bound": 0}
    for number in range(int(times)):
        with contextlib.suppress(HypercallError):
            value, descriptors = call(m.EvtchnAllocUnbound(DOMID_SELF, peer))
            _close(descriptors)
            done["offered"] += 1
            for port in range(max(1, value["port"] - 4), value["port"] + 4):
                with contextlib.suppress(HypercallError):
                    _, descriptors = call(m.EvtchnBindInterdomain(peer, Port(port)))
                    _close(descriptors)
                    done["bound"] += 1
            for message in (m.EvtchnSend(value["port"]), m.EvtchnClose(value["port"])):
                with contextlib.suppress(HypercallError):
                    call(message)
        if number % 5 == 0:
            call(m.EvtchnReset(DOMID_SELF))
    call(m.EvtchnReset(DOMID_SELF))
    return f"offered {done['offered']}, bound {done['bound']}"


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
