"""One event channel, ring and run of pages between two measured domains, without a device's handshake around them.

The calling end offers, the answering end accepts; the toolstack carries the numbers from one to the other. Then both
are told what to do at the same time: one answers for as long as it is asked, the other asks and records.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from hvd.domains.guest import Guest
from hvd.transport._native import dirty_lines, touch_lines
from hvd.transport.channels import Endpoint, Waiter
from hvd.transport.histogram import Histogram, time_calls_at_rate, to_text
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.rings import RING_HEADER_SIZE, BackRing, FrontRing

MESSAGE = bytes(range(64))
BULK_PAGES = 1024
LOOK_NS = 50_000_000
"""When nobody has asked for so long, the answering end looks whether the asking end has said that it is done."""
DONE_AT = 4095
"""Where it says so: the last byte of the ring's page, which no slot reaches."""
READY_AT = 4094
"""Where the answering end says that its ring is in place: the asking end makes the shared words anew then."""
READY_LOOK_S, READY_LOOKS = 0.001, 30_000
ANSWERER_NS = 120_000_000_000
"""An asking end that has died says nothing."""
ANSWER_NS = 30_000_000_000
"""The asking end gives up: its peer may have been stopped on purpose, and is awaited."""
WARM_UP_NS = 20_000_000
RING_PORT = 1


class Silence(Exception):
    """The other end has not answered."""


class Link:
    """Either end."""

    ORDERS: ClassVar[tuple[str, ...]] = (
        "offer", "accept", "call", "call_at_rate", "answer", "ask", "ask_in_batches", "serve", "serve_in_batches",
        "hand_over", "copy", "receive",
    )  # fmt: skip
    _endpoint: Endpoint
    _ring_page: memoryview
    _bulk: memoryview

    def __init__(self, guest: Guest) -> None:
        self._runtime = guest.runtime

    # ---- the connection ----------------------------------------------------------------------------------------------

    def offer(self, peer: int) -> dict[str, Any]:
        """The calling end."""
        port, self._endpoint = self._runtime.alloc_unbound(DomId(peer), _nothing)
        self._runtime.waiter.remove(port)
        ring, bulk = self._runtime.grants.share(DomId(peer), 1), self._runtime.grants.share(DomId(peer), BULK_PAGES)
        self._ring_page, self._bulk = ring.view, bulk.view
        return {"port": port, "ring": ring.ref, "bulk": bulk.ref}

    def accept(self, caller: int, port: int, ring: int, bulk: int) -> dict[str, Any]:
        """The answering end."""
        ours, self._endpoint = self._runtime.bind_interdomain(DomId(caller), Port(port), _nothing)
        self._runtime.waiter.remove(ours)
        self._ring_page = self._runtime.grants.map(DomId(caller), GrantRef(ring)).view
        self._bulk = self._runtime.grants.map(DomId(caller), GrantRef(bulk), BULK_PAGES).view
        return {}

    # ---- the event channel -------------------------------------------------------------------------------------------

    def call(self, for_ns: int, spin_ns: int, think_ns: int = 0, computing: bool = False) -> dict[str, Any]:
        """Round trips of an event there and back, one after the other."""
        times, call = Histogram(), self._caller(spin_ns)
        if not think_ns:
            times.time_calls(call, WARM_UP_NS)
            times.reset()
        times.time_calls(call, for_ns, think_ns, computing)
        self._done()
        return {"times": to_text(times)}

    def call_at_rate(self, for_ns: int, spin_ns: int, interval_ns: int) -> dict[str, Any]:
        """An event is due every so often, whether or not the one before has come back."""
        from_intended, from_sent, call = Histogram(), Histogram(), self._caller(spin_ns)
        time_calls_at_rate(from_intended, from_sent, call, for_ns, interval_ns)
        self._done()
        return {"times": to_text(from_intended), "sent": to_text(from_sent)}

    def answer(self, spin_ns: int) -> dict[str, Any]:
        """A server has no deadline; one that polls must look up now and then.

        One that sleeps looks at no more than a byte before it answers: what is between a message and its answer is in
        every round trip, and the other ways' answering ends, which are stopped from outside, have nothing there.
        """
        wait, notify, asked, page = self._endpoint.wait, self._endpoint.notify, self._asker(), self._ring_page
        if spin_ns == 0:
            while wait(-1, 0) and not page[DONE_AT]:
                notify()
                if self._endpoint.peer_closed:
                    break
            return {}
        while True:
            if wait(LOOK_NS, spin_ns):
                notify()
            elif not asked():
                return {}

    def _asker(self) -> Callable[[], bool]:
        """Whether the asking end may still ask; called when it has not for a while."""
        self._ring_page[DONE_AT] = 0
        until_ns = time.monotonic_ns() + ANSWERER_NS
        return lambda: not self._ring_page[DONE_AT] and time.monotonic_ns() < until_ns

    def _done(self) -> None:
        self._ring_page[DONE_AT] = 1
        self._endpoint.notify()

    def _caller(self, spin_ns: int) -> Any:
        wait, notify = self._endpoint.wait, self._endpoint.notify
        while self._endpoint.take():  # binding raised it; a peer that gave up on us may have, too
            continue

        def call() -> None:
            notify()
            if not wait(ANSWER_NS, spin_ns):
                raise Silence

        return call

    # ---- the ring ----------------------------------------------------------------------------------------------------

    def ask(self, for_ns: int, depth: int) -> dict[str, Any]:
        """Requests pushed and answers popped one by one, `depth` of them in flight."""
        ring, waiter = self._front()
        push, pop, answered, in_flight = ring.push, ring.pop, 0, 0
        begin_ns = now_ns = time.monotonic_ns()
        while now_ns < begin_ns + for_ns:
            must_notify = False
            for _ in range(depth - in_flight):
                must_notify |= push(MESSAGE)
            if must_notify:
                self._endpoint.notify()
            in_flight = depth
            waiter.wait(ANSWER_NS)
            while pop() is not None:
                in_flight -= 1
            answered += depth - in_flight
            now_ns = time.monotonic_ns()
        return self._asked(waiter, ring, answered, in_flight, begin_ns)

    def ask_in_batches(self, for_ns: int, depth: int) -> dict[str, Any]:
        """The same through the calls that move many."""
        ring, waiter = self._front()
        messages, answered, in_flight = memoryview(MESSAGE * depth), 0, 0
        begin_ns = now_ns = time.monotonic_ns()
        while now_ns < begin_ns + for_ns:
            pushed, must_notify = ring.push_many(messages[: (depth - in_flight) * len(MESSAGE)])
            if must_notify:
                self._endpoint.notify()
            waiter.wait(ANSWER_NS)
            popped = len(ring.pop_many()) // len(MESSAGE)
            in_flight += pushed - popped
            answered += popped
            now_ns = time.monotonic_ns()
        return self._asked(waiter, ring, answered, in_flight, begin_ns)

    def serve(self) -> dict[str, Any]:
        """Answers one by one; a notification for all that were answered together."""
        ring, waiter, asked = *self._back(), self._asker()
        push, pop = ring.push, ring.pop
        while waiter.wait(LOOK_NS) or asked():
            must_notify = False
            while (request := pop()) is not None:
                must_notify |= push(request)
            if must_notify:
                self._endpoint.notify()
        self._leave(waiter, ring)
        return {}

    def serve_in_batches(self) -> dict[str, Any]:
        ring, waiter, asked = *self._back(), self._asker()
        while waiter.wait(LOOK_NS) or asked():
            _, must_notify = ring.push_many(ring.pop_many())
            if must_notify:
                self._endpoint.notify()
        self._leave(waiter, ring)
        return {}

    def _front(self) -> tuple[FrontRing, Waiter]:
        for _ in range(READY_LOOKS):
            if self._ring_page[READY_AT]:
                break
            time.sleep(READY_LOOK_S)
        else:
            raise Silence
        self._ring_page[READY_AT] = 0
        ring = FrontRing(self._ring_page, len(MESSAGE), len(MESSAGE), checked=True)
        ring.init()
        return ring, self._waiter(ring)

    def _back(self) -> tuple[BackRing, Waiter]:
        """At index 0 of an empty ring, as the front that waits for us will be."""
        self._ring_page[:RING_HEADER_SIZE] = bytes(RING_HEADER_SIZE)
        ring = BackRing(self._ring_page, len(MESSAGE), len(MESSAGE), checked=True)
        waiter = self._waiter(ring)
        self._ring_page[READY_AT] = 1
        return ring, waiter

    def _waiter(self, ring: FrontRing | BackRing) -> Waiter:
        waiter = Waiter()
        waiter.add(RING_PORT, self._endpoint)
        waiter.attach_ring(RING_PORT, ring)
        return waiter

    def _asked(self, waiter: Waiter, ring: FrontRing, answered: int, in_flight: int, begin_ns: int) -> dict[str, Any]:
        took_ns = time.monotonic_ns() - begin_ns
        while in_flight:  # whoever asks next finds an empty ring
            waiter.wait(ANSWER_NS)
            in_flight -= len(ring.pop_many()) // len(MESSAGE)
        self._leave(waiter, ring)
        self._done()
        return {"answered": answered, "took_ns": took_ns}

    def _leave(self, waiter: Waiter, ring: FrontRing | BackRing) -> None:
        waiter.close()
        ring.close()

    # ---- pages -------------------------------------------------------------------------------------------------------

    def hand_over(self, for_ns: int, bytes_count: int, touching: bool) -> dict[str, Any]:
        """Pages that have just been written, to the peer and back; the writing is not timed."""
        times, pages, call = Histogram(), self._bulk[: bytes_count if touching else 0], self._caller(ANSWER_NS)
        until_ns = time.monotonic_ns() + for_ns
        while time.monotonic_ns() < until_ns or not times.count:
            dirty_lines(pages, times.count + 1)
            start_ns = time.perf_counter_ns()
            call()
            times.record(time.perf_counter_ns() - start_ns)
        self._done()
        return {"times": to_text(times)}

    def copy(self, for_ns: int, bytes_count: int) -> dict[str, Any]:
        """The same pages copied by memcpy within this process instead."""
        times, source, target = Histogram(), memoryview(bytearray(bytes_count)), memoryview(bytearray(bytes_count))
        until_ns = time.monotonic_ns() + for_ns
        while time.monotonic_ns() < until_ns or not times.count:
            dirty_lines(source, times.count + 1)
            start_ns = time.perf_counter_ns()
            target[:] = source
            times.record(time.perf_counter_ns() - start_ns)
        return {"times": to_text(times)}

    def receive(self, bytes_count: int, touching: bool) -> dict[str, Any]:
        """Polled: what is measured is the memory, not a wake-up."""
        wait, notify, asked = self._endpoint.wait, self._endpoint.notify, self._asker()
        pages = self._bulk[: bytes_count if touching else 0]
        while True:
            if wait(LOOK_NS, ANSWER_NS):
                touch_lines(pages)
                notify()
            elif not asked():
                return {}


def _nothing() -> None:
    """The endpoint is taken from the domain's waiter at once."""
