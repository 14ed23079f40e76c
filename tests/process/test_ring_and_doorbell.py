"""Ring and doorbell between two forked processes: hot, asleep, closed, killed and hostile."""

import os
import random
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable

import pytest

from hvd.transport.channels import ChannelDescriptors, Endpoint, Waiter, create_channel, open_endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.pages import PAGE_SIZE, Extent, create_extent
from hvd.transport.rings import BackRing, FrontRing

DEADLINE_S = 100
DEADLINE_NS = DEADLINE_S * 1_000_000_000
PORT = 9
MESSAGE = struct.Struct("<Q56x")
WAITING_OF_1 = 128 + 4
"""In a channel page: what wakes side 1 if it sleeps."""


class Child:
    """A forked process that runs one function and must end by itself, or be killed by the test."""

    def __init__(self, body: Callable[[], None]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # we fork beside pytest's threads, and use none of them
            self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(DEADLINE_S)
                body()
                status = 0
            except BaseException:  # noqa: BLE001 - a child must never return into pytest
                traceback.print_exc()
            finally:
                os._exit(status)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Link:
    """A ring page and a channel, as the broker would hold them for a frontend (side 0) and a backend (side 1)."""

    def __init__(self, pages: int = 1) -> None:
        self.pages = pages
        self.ring_fd = create_extent(pages, "hvd-test-ring")
        self.channel: ChannelDescriptors = create_channel()
        with Extent.map(self.ring_fd, pages, writable=True) as extent:
            ring = FrontRing(extent.view, MESSAGE.size, MESSAGE.size)
            ring.init()
            ring.close()

    def endpoint(self, side: int) -> Endpoint:
        end = self.channel.ends[side]
        return open_endpoint(self.channel.page_fd, side, os.dup(end.rx), os.dup(end.tx))

    def extent(self) -> Extent:
        return Extent.map(self.ring_fd, self.pages, writable=True)

    def mark_closed(self, side: int) -> None:
        """What the broker does for a side that has died."""
        end = open_endpoint(self.channel.page_fd, side, -1, os.dup(self.channel.ends[side].tx))
        end.mark_closed()
        end.close()

    def close(self) -> None:
        os.close(self.ring_fd)
        self.channel.close()


@pytest.fixture
def link():
    made = Link()
    yield made
    made.close()


class Side:
    """One process's end of a link: ring, endpoint, and a waiter over both."""

    def __init__(self, link: Link, side: int, *, spin_limit_ns: int = 200_000) -> None:
        self.extent = link.extent()
        kind = FrontRing if side == 0 else BackRing
        self.ring = kind(self.extent.view, MESSAGE.size, MESSAGE.size)
        self.endpoint = link.endpoint(side)
        self.waiter = Waiter(spin_limit_ns)
        self.waiter.add(PORT, self.endpoint)
        self.waiter.attach_ring(PORT, self.ring)

    def push(self, number: int) -> None:
        if self.ring.push(MESSAGE.pack(number)):
            self.endpoint.notify()

    def pop(self) -> int:
        while True:
            closed = self.endpoint.peer_closed  # before the pop: what was pushed before the close is still delivered
            if (message := self.ring.pop()) is not None:
                break
            if closed:
                raise EOFError
            assert self.waiter.wait(DEADLINE_NS) == (PORT,)
        return int.from_bytes(message[:8], "little")

    def close(self) -> None:
        self.waiter.close()
        self.ring.close()
        self.endpoint.close()
        self.extent.close()


@pytest.fixture
def front(link):
    side = Side(link, 0)
    yield side
    side.close()


def echo(link: Link, count: int, **options: int) -> None:
    side = Side(link, 1, **options)
    for _ in range(count):
        side.push(side.pop() + 1)


def test_100_000_round_trips_keep_their_order(link, front):
    rounds = 100_000
    child = Child(lambda: echo(link, rounds))
    for number in range(rounds):
        front.push(number)
        assert front.pop() == number + 1
    assert child.wait() == 0


def test_the_sleeping_side_is_woken_every_time(link, front):
    rounds = 3_000
    child = Child(lambda: echo(link, rounds, spin_limit_ns=0))
    for number in range(rounds):
        front.push(number)
        assert front.pop() == number + 1
    assert child.wait() == 0
    assert front.endpoint.statistics().rung > 0


def test_a_word_is_slept_on_and_woken_across_processes(link):
    """Whoever is not woken there wakes at the pipe, later: not every time, however busy the machine is."""
    rounds, woken_by_word = 50, 2

    def sleep() -> None:
        theirs = link.endpoint(1)
        for _ in range(rounds):
            assert theirs.wait(DEADLINE_NS, 0)
            theirs.notify()
        assert theirs.statistics().lasted < rounds

    child = Child(sleep)
    ours = link.endpoint(0)
    with Extent.map(link.channel.page_fd, 1, writable=True) as page:
        for _ in range(rounds):
            until = time.monotonic() + DEADLINE_S
            while struct.unpack_from("<I", page.view, WAITING_OF_1)[0] != woken_by_word and time.monotonic() < until:
                time.sleep(0)
            ours.notify()
            assert ours.wait(DEADLINE_NS, 0)
    assert child.wait() == 0
    ours.close()


def test_a_full_ring_in_flight_wraps_many_times(link, front):
    child = Child(lambda: echo(link, 50_000))
    asked = answered = 0
    while answered < 50_000:
        while asked < 50_000 and front.ring.free:
            front.push(asked)
            asked += 1
        assert front.pop() == answered + 1
        answered += 1
    assert child.wait() == 0


def test_closing_wakes_the_survivor(link, front):
    def close_after_one() -> None:
        side = Side(link, 1)
        side.push(side.pop() + 1)
        side.endpoint.mark_closed()

    child = Child(close_after_one)
    front.push(1)
    assert front.pop() == 2
    with pytest.raises(EOFError):
        front.pop()
    assert child.wait() == 0


def test_a_survivor_of_sigkill_is_woken_by_the_broker_and_by_nothing_else(link, front):
    child = Child(lambda: echo(link, 1_000_000))
    front.push(1)
    assert front.pop() == 2
    child.kill()
    assert child.wait() == -signal.SIGKILL
    front.waiter.wait(0)  # the event of its last response may have come after the response was seen
    front.push(2)
    assert front.waiter.wait(1_000_000) == ()
    link.mark_closed(1)
    with pytest.raises(EOFError):
        front.pop()


def test_a_backend_killed_again_and_again_is_replaced_on_the_same_ring(link, front):
    """A backend that answers in order, killed anywhere: its successor attaches at rsp_prod, and nothing is missed."""

    def serve() -> None:
        side = Side(link, 1)
        side.ring.attach(side.ring.untrusted_indices()[2])
        while True:
            side.push(side.pop() + 1)

    source = random.Random(20261122)
    asked = answered = 0
    for _ in range(20):
        child = Child(serve)
        until = answered + source.randint(1, 2_000)
        while answered < until:
            while front.ring.free:
                front.push(asked)
                asked += 1
            assert front.pop() == answered + 1
            answered += 1
        child.kill()
        assert child.wait() == -signal.SIGKILL
        link.mark_closed(1)
        front.endpoint.kick()  # binding raises the port of the other side: the successor looks at the ring
        reopened = link.endpoint(1)
        reopened.mark_open()
        reopened.close()
    assert answered > 2_000


def scribble(link: Link) -> None:
    """Junk in every word of the shared pages, the pipe kept full, nothing ever drained."""
    channel = Extent.map(link.channel.page_fd, 1, writable=True)
    ring = link.extent()
    source = random.Random(1)
    tx = link.channel.ends[1].tx
    while True:
        channel.view[:] = source.randbytes(PAGE_SIZE)
        ring.view[:64] = source.randbytes(64)
        try:
            os.write(tx, bytes(PAGE_SIZE))
        except BlockingIOError:
            continue


@pytest.mark.parametrize("spin_limit_ns", [0, 200_000])
def test_a_hostile_peer_blocks_and_crashes_nobody(spin_limit_ns):
    hostile, honest = Link(), Link()
    villain = Child(lambda: scribble(hostile))
    partner = Child(lambda: echo(honest, 500, spin_limit_ns=spin_limit_ns))
    try:
        victim, other = Side(hostile, 0, spin_limit_ns=spin_limit_ns), Side(honest, 0, spin_limit_ns=spin_limit_ns)
        other.waiter.close()
        victim.waiter.add(PORT + 1, other.endpoint)
        victim.waiter.attach_ring(PORT + 1, other.ring)
        faults = rounds = 0
        other.push(0)
        deadline = time.monotonic() + DEADLINE_S
        while rounds < 500 or not faults:
            assert time.monotonic() < deadline
            ports = victim.waiter.wait(DEADLINE_NS)
            if PORT in ports:
                faults += use_of_a_broken_link(victim)
            if PORT + 1 in ports and (message := other.ring.pop()) is not None:
                assert message == MESSAGE.pack(rounds + 1)
                rounds += 1
                if rounds < 500:
                    other.push(rounds)
        assert partner.wait() == 0
    finally:
        villain.kill()
        villain.wait()
    victim.close()
    other.close()
    hostile.close()
    honest.close()


def use_of_a_broken_link(victim: Side) -> bool:
    """All that an honest end may do on a channel; whether the ring turned out to be broken."""
    victim.endpoint.notify()
    victim.endpoint.kick()
    assert victim.endpoint.peer_closed in (True, False)
    try:
        victim.ring.pop_many()
    except PeerFault:
        return True
    return False


def test_a_guest_that_restores_the_deadly_sigpipe_survives_a_dead_peer():
    def ring_nobody() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        channel = create_channel()
        os.close(channel.ends[1].rx)
        end = open_endpoint(channel.page_fd, 0, -1, channel.ends[0].tx)
        for _ in range(3):
            end.kick()

    assert Child(ring_nobody).wait() == 0
