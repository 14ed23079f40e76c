"""A guest that brings its own xenbus client: it counts in `data/beats`, by XenStore's ring page alone.

The ring is that of xs_wire.h, spoken to as docs/misc/xenstore-ring.txt has it. Nothing that stands in the page is
believed: where the ring is broken, the client waits until XenStore's end says so in the word `error`, and reconnects.
Behind each reconnection it says on its console how often that was. Argument `pace_ms=N` between two beats.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable

from hvd.domains.guest import Guest
from hvd.domains.runtime import Runtime
from hvd.transport import messages as m
from hvd.transport import xs_wire
from hvd.transport.channels import open_endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.xs_wire import RING_BYTES, Message, Type

AUTO_READY = False
BEATS = b"data/beats"
PATIENCE_S = 10.0
"""For an answer, and for a reconnection: past it the ring counts as broken."""
LOOK_NS = 50_000_000
WORD, INDEX = 4, 0xFFFFFFFF


class Broken(Exception):
    """Nobody answers on the ring as it is."""


class StoreRing:
    """The client's end: one request at a time, shorter than the ring."""

    def __init__(self, runtime: Runtime) -> None:
        told, (extent, page, rx, tx) = runtime.hypercalls.call(m.StoreRing())
        self._page = memoryview(mmap.mmap(extent, mmap.PAGESIZE))
        self._words = self._page.cast("I")
        self._bell = open_endpoint(page, told["side"], rx, tx)
        self._req_prod = self._rsp_cons = 0
        for descriptor in (extent, page):
            os.close(descriptor)

    def write(self, path: bytes, value: bytes) -> None:
        """Broken when that is not answered with OK."""
        self._send(xs_wire.pack(Type.WRITE, 1, 0, path + b"\0" + value))
        until = time.monotonic() + PATIENCE_S
        untrusted = b""
        while (found := _message(untrusted)) is None:
            if self._words[xs_wire.ERROR_AT // WORD] or time.monotonic() > until:
                raise Broken
            untrusted += self._receive()
        if found.type != Type.WRITE:
            raise Broken

    def reconnect(self) -> None:
        """Begin anew, when XenStore's end has said that it will not go on. Broken when it does not answer."""
        self._wait_until(lambda: self._words[xs_wire.ERROR_AT // WORD] != xs_wire.RingError.NONE)
        self._words[xs_wire.CONNECTION_AT // WORD] = xs_wire.RECONNECT
        self._bell.notify()
        if not self._wait_until(lambda: self._words[xs_wire.CONNECTION_AT // WORD] == xs_wire.CONNECTED):
            raise Broken
        self._req_prod = self._rsp_cons = 0

    def _send(self, request: bytes) -> None:
        for offset, byte in enumerate(request):
            self._page[xs_wire.REQUESTS_AT + (self._req_prod + offset) % RING_BYTES] = byte
        self._fence()
        self._req_prod = (self._req_prod + len(request)) & INDEX
        self._words[xs_wire.REQ_PROD_AT // WORD] = self._req_prod
        self._bell.notify()

    def _receive(self) -> bytes:
        """What there is, or nothing after a while; nothing as well where the index cannot be: `error` will say so."""
        count = (self._words[xs_wire.RSP_PROD_AT // WORD] - self._rsp_cons) & INDEX
        if not 0 < count <= RING_BYTES:
            self._bell.wait(LOOK_NS)
            return b""
        self._fence()
        at = xs_wire.RESPONSES_AT
        untrusted = bytes(self._page[at + (self._rsp_cons + offset) % RING_BYTES] for offset in range(count))
        self._rsp_cons = (self._rsp_cons + count) & INDEX
        self._fence()
        self._words[xs_wire.RSP_CONS_AT // WORD] = self._rsp_cons
        self._bell.notify()
        return untrusted

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether it holds in time."""
        until = time.monotonic() + PATIENCE_S
        while not (holds := condition()) and time.monotonic() < until:
            self._bell.wait(LOOK_NS)
        return holds

    def _fence(self) -> None:
        """Python has none: a fenced store and a load that acquires, on a channel whose words are looked at anew."""
        self._bell.arm()
        self._bell.take()


def _message(untrusted: bytes) -> Message | None:
    """The reply, when it is whole."""
    try:
        found = xs_wire.split(untrusted, 0)
    except PeerFault:
        raise Broken from None
    return found[0] if found else None


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    ring, pace_s = StoreRing(guest.runtime), int(options.get("pace_ms", "20")) / 1000
    beats = reconnections = 0
    while True:
        try:
            ring.write(BEATS, b"%d" % (beats + 1))
        except Broken:
            ring.reconnect()
            reconnections += 1
            print(f"reconnected {reconnections} times")
            continue
        beats += 1
        if beats == 1:
            guest.ready()
        guest.sleep(pace_s)
