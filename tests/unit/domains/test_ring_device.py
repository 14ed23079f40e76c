"""Both ends of a ring device in one process, over a real page and real doorbells; backends come, lie, fail and go."""

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.domains.attaching import Attached
from hvd.domains.ring_device import BATCH, RingBackend, RingFrontend
from hvd.domains.runtime import Runtime, WaitTimeout
from hvd.transport.channels import Waiter, create_channel, open_endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DomId
from hvd.transport.pages import Extent, create_extent

PORT, REF = 5, 9
SIZE = 8


class Front(RingFrontend):
    REQUEST_SIZE = RESPONSE_SIZE = SIZE
    TIMEOUT_S = 0.05


class Back(RingBackend):
    REQUEST_SIZE = RESPONSE_SIZE = SIZE

    def answer(self, untrusted_request):
        if untrusted_request.startswith(b"bad"):
            raise PeerFault("bad request")
        return untrusted_request[::-1]


class Domain:
    """What a ring device needs of its domain: a waiter with handlers, and the wire in the hypervisor's place."""

    deliver: Any = Runtime.deliver
    wait: Any = Runtime.wait
    _sleep: Any = Runtime._sleep
    wait_until: Any = Runtime.wait_until
    stands_by = leaving = False

    def __init__(self, wire):
        self.name = "test"
        self.wire = wire
        self.waiter = Waiter(0)
        self.grants = self
        self._handlers = {}
        self._raised = set()
        self.mapped = 0

    def system_time_ns(self):
        return time.monotonic_ns()

    def share(self, peer, pages):
        return SimpleNamespace(ref=REF, view=self.wire.page.pages(0, pages))


    def unmap(self, mapped):
        self.mapped -= 1
        mapped.view.release()

    def alloc_unbound(self, remote, handler):
        return self._bind(handler, 0)

    def attach(self, peer, refs, ports, runs=()):
        assert [port for port, _ in ports] == [PORT]
        self.mapped += 1
        return Attached([self.wire.page_mapped()], [], [self._bind(handler, 1) for _, handler in ports])

    detach: Any = Runtime.detach

    def _bind(self, handler, side):
        self.waiter.add(PORT, self.wire.endpoints[side])
        self._handlers[PORT] = handler
        return PORT, self.wire.endpoints[side]

    def close_port(self, port):
        self.waiter.remove(port)
        del self._handlers[port]


def domain(wire) -> Any:
    return Domain(wire)


class Wire:
    """A frontend, and a backend that can be replaced."""

    def __init__(self):
        descriptor = create_extent(1, "hvd-test-ring")
        self.page = Extent.map(descriptor, 1, writable=True)
        os.close(descriptor)
        channel = create_channel()
        self.endpoints = [open_endpoint(channel.page_fd, n, end.rx, end.tx) for n, end in enumerate(channel.ends)]
        os.close(channel.page_fd)
        self.guest = domain(self)
        self.driver_domain = domain(self)
        self.front = Front(self.guest, DomId(1), {})
        self.back = Back(self.driver_domain, DomId(2), {})
        self.faults: list[PeerFault] = []
        self.front.on_fault = self.back.on_fault = self.faults.append

    def page_mapped(self) -> Any:
        return SimpleNamespace(view=self.page.pages(0, 1))

    def connect(self):
        self.back.attach(self.front.publish({}))
        self.front.connected({})

    def restart_backend(self):
        self.front.backend_gone()
        self.back.detach()
        self.connect()

    def serve_while_waiting(self, *steps):
        """When the guest waits, these happen, one each time; then the backend serves."""
        rest = iter(steps)
        wait = self.guest.waiter.wait

        def wait_here(timeout_ns):
            next(rest, self.serve)()
            return wait(0)

        waiter: Any = SimpleNamespace(wait=wait_here)
        self.front._waiter = waiter

    def serve(self):
        self.driver_domain.wait(0)

    def close(self):
        for domain in (self.guest, self.driver_domain):
            domain.waiter.close()
        for end in self.endpoints:
            end.close()


@pytest.fixture
def wire():
    made = Wire()
    yield made
    made.close()


def test_a_request_is_answered_and_a_short_one_is_filled_with_zeros(wire):
    wire.connect()
    wire.serve_while_waiting()
    assert wire.front.call(b"12345678") == b"87654321"
    assert wire.front.call(b"12") == b"\0\0\0\0\0\x0021"


def test_a_request_that_nobody_answers_times_out(wire):
    wire.connect()
    with pytest.raises(WaitTimeout, match="an answer from domain 1"):
        wire.front.call(b"1")


def test_a_request_whose_backend_died_is_asked_again_of_the_next(wire):
    wire.connect()
    wire.serve_while_waiting(wire.restart_backend)
    assert wire.front.call(b"12345678") == b"87654321"


def test_an_answer_that_a_backend_gave_before_it_died_is_asked_for_again_once(wire):
    wire.connect()

    def answer_and_die():
        wire.serve()
        wire.restart_backend()

    wire.serve_while_waiting(answer_and_die)
    assert wire.front.call(b"12345678") == b"87654321"
    assert wire.front.call(b"abcdefgh") == b"hgfedcba"


def test_a_late_answer_is_not_taken_for_the_next_requests(wire):
    wire.connect()
    with pytest.raises(WaitTimeout):
        wire.front.call(b"late")
    wire.serve_while_waiting()
    assert wire.front.call(b"12345678") == b"87654321"


def test_a_late_answer_that_comes_outside_a_call_is_dropped_and_wakes_nobody_for_ever(wire):
    wire.connect()
    with pytest.raises(WaitTimeout):
        wire.front.call(b"late")
    wire.serve()
    assert wire.guest.wait(0)
    assert not wire.guest.wait(0)


def test_a_backend_whose_index_jumps_is_a_fault_and_the_call_goes_on_to_wait(wire):
    wire.connect()
    wire.serve_while_waiting(lambda: wire.page.view.__setitem__(slice(8, 12), b"\xff\xff\xff\x7f"))
    with pytest.raises(WaitTimeout):
        wire.front.call(b"1")
    assert "rsp_prod" in str(wire.faults[0])


def test_a_frontend_whose_request_is_nonsense_is_a_fault(wire):
    wire.connect()
    wire.serve_while_waiting()
    with pytest.raises(WaitTimeout):
        wire.front.call(b"bad")
    assert [str(fault) for fault in wire.faults] == ["bad request"]


def test_a_backend_answers_at_most_a_batch_in_one_turn(wire):
    """The ring has 512 slots of 8 bytes less its header: more than a batch."""
    wire.connect()
    for _ in range(BATCH + 10):
        wire.front._push(b"1")
    wire.serve()
    assert wire.front._ring.unconsumed == BATCH
    wire.serve()
    assert wire.front._ring.unconsumed == BATCH + 10


@pytest.mark.parametrize("key", ["ring-ref", "event-channel"])
@pytest.mark.parametrize("value", ["", "-1", "4294967296", "x"])
def test_keys_that_are_no_numbers_are_the_frontends_fault_and_leave_nothing_attached(wire, key, value):
    with pytest.raises(PeerFault, match=f"key {key}"):
        wire.back.attach(wire.front.publish({}) | {key: value})
    wire.back.detach()
    assert wire.driver_domain.mapped == 0
    wire.connect()


def test_a_backend_gives_everything_back_and_may_attach_again(wire):
    wire.connect()
    wire.back.detach()
    assert (wire.driver_domain.mapped, wire.driver_domain._handlers) == (0, {})
    wire.back.detach()
    wire.restart_backend()
    assert wire.driver_domain.mapped == 1
