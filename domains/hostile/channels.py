"""Attacks by the descriptors of an event channel, and by ports."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import resource
import stat

from hvd.domains.guest import Guest
from hvd.domains.hostile.grants import told
from hvd.domains.hostile.messages import certificate
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, Port
from hvd.transport.limits import PORTS_MAX

SCRIBBLES, LINES_BYTES, SEED = 20_000, 256, 1
VIRQ_TIMER, VIRQ_DEBUG, VIRQ_UPCALL, NO_VIRQ = 0, 1, 0x80, 77


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


def bind_virqs(guest: Guest) -> str:
    """XSA-496: virqs that cannot be bound, as they are, as there is none of that number, as no port is left for one."""
    bound = _bind(guest, VIRQ_TIMER)
    ports = _fill_ports(guest)
    guest.runtime.store.write("data/full", "1")
    told(guest, "go")
    refused = [_bind(guest, virq) for virq in (VIRQ_TIMER, VIRQ_UPCALL, NO_VIRQ, VIRQ_DEBUG) for _ in range(10)]
    guest.runtime.store.write("data/refused", str(refused.count(None)))
    told(guest, "free")
    guest.runtime.hypercalls.call(m.EvtchnClose(ports[-1]))
    after = [_bind(guest, virq) for virq in (NO_VIRQ, VIRQ_TIMER, VIRQ_DEBUG)]
    works = bound is not None and after == [None, None, ports[-1]]
    return f"{'bound' if works else 'lost'} the last virq when a port was free"


def _bind(guest: Guest, virq: int) -> Port | None:
    """The port that it is raised at; None: refused."""
    try:
        value, descriptors = guest.runtime.hypercalls.call(m.EvtchnBindVirq(virq))
    except HypercallError:
        return None
    _close(descriptors)
    return Port(value["port"])


def _fill_ports(guest: Guest) -> list[Port]:
    """All that there are left."""
    ports = []
    with contextlib.suppress(HypercallError):
        while True:
            value, descriptors = guest.runtime.hypercalls.call(m.EvtchnAllocUnbound(DOMID_SELF, DOM0))
            _close(descriptors)
            ports.append(Port(value["port"]))
    return ports


def ask_of_nothing(guest: Guest) -> str:
    """XSA-221: the state of ports that are closed, never were, or lead nowhere, and events for them, deaths' too."""
    call, carried_out = guest.runtime.hypercalls.call, 0
    value, descriptors = call(m.EvtchnAllocUnbound(DOMID_SELF, DOM0))
    _close(descriptors)
    call(m.EvtchnClose(Port(value["port"])))
    ports = [Port(port) for port in (0, value["port"], 500, PORTS_MAX, PORTS_MAX + 1, 4096, 131_071, 2**31, 2**32 - 1)]
    for port in ports:
        extent, descriptors = call(m.GnttabAllocate(DOM0, 1, False))
        _close(descriptors)
        for message in (m.EvtchnStatus(DOMID_SELF, port), m.EvtchnSend(port), m.EvtchnClose(port),
                        m.EvtchnBindInterdomain(DOMID_SELF, port), m.EvtchnBindInterdomain(DOM0, port),
                        m.GnttabShareNotify(extent, 0, True, port), m.GnttabFree(extent)):  # fmt: skip
            with contextlib.suppress(HypercallError):
                call(message)
                carried_out += 1
    return f"asked of {len(ports)} ports, {carried_out} calls were carried out"


def scribble(guest: Guest) -> str:
    """XSA-107, XSA-358, XSA-359: whatever can be, in whatever order, in the words that a channel's ends share."""
    runtime, peer = guest.runtime, DomId(int(told(guest, "peer")))
    value, (page, rx, tx) = runtime.hypercalls.call(m.EvtchnAllocUnbound(DOMID_SELF, peer))
    shared = runtime.grants.share(peer, 1)
    runtime.store.write("data/ref", shared.ref)
    runtime.store.write("data/port", value["port"])
    told(guest, "go")
    drawn, words = random.Random(SEED), mmap.mmap(page, mmap.PAGESIZE)
    values = [bytes(4), b"\xff" * 4, (1).to_bytes(4, "little"), (2**31).to_bytes(4, "little"), drawn.randbytes(4)]
    for number in range(SCRIBBLES):
        at = drawn.randrange(0, LINES_BYTES, 4)
        words[at : at + 4] = drawn.choice(values)
        if number % 16 == 0:
            with contextlib.suppress(OSError):
                os.write(tx, drawn.randbytes(64))
            words[:LINES_BYTES] = drawn.randbytes(LINES_BYTES)
    for descriptor in (page, rx, tx):
        os.close(descriptor)
    return f"scribbled {SCRIBBLES:,} words"


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


def list_descriptors(guest: Guest) -> str:
    """What each of ours is open on; character devices and the kernel's nameless files are everybody's."""
    found = []
    for descriptor in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_IFMT(status.st_mode) not in (0, stat.S_IFCHR):
                found.append(f"{status.st_dev}:{status.st_ino}")
    return " ".join(found)
