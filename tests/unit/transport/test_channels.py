"""Endpoints and the waiter, both sides in one process; a second thread sleeps where a sleeper is needed."""

import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hvd.transport.channels import Endpoint, Waiter, create_channel, is_closed, open_endpoint
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.pages import PAGE_SIZE, Extent
from hvd.transport.protocols.console import ConsoleBack, ConsoleFront
from hvd.transport.rings import BackRing, FrontRing

SECOND_NS = 1_000_000_000
DEADLINE_NS = 60 * SECOND_NS
LINE_SIZE = 128
LONGER_THAN_ON_THE_WORD_NS = 30_000_000
LONGER_THAN_BETWEEN_LOOKS_S = 1.1
BUDGET_DOUBLES = 10
"""From 10 us on, at each sleep."""
PENDING, WAITING, CPU, CLOSED = 0, 4, 8, 12
BY_PIPE, BY_WORD = 1, 2
"""What wakes a sleeper, as it says in its WAITING."""


class Channel:
    """Both endpoints of a channel, and its page as a hostile side would see it."""

    def __init__(self):
        descriptors = create_channel()
        self.extent = Extent.map(descriptors.page_fd, 1, writable=True)
        self.ends = tuple(
            open_endpoint(descriptors.page_fd, side, descriptors.ends[side].rx, descriptors.ends[side].tx)
            for side in (0, 1)
        )
        os.close(descriptors.page_fd)
        self.raw_ends = descriptors.ends

    def poke(self, side, word, value):
        """Writes a word of the direction that `side` receives."""
        struct.pack_into("<I", self.extent.view, side * LINE_SIZE + word, value)

    def peek(self, side, word):
        return struct.unpack_from("<I", self.extent.view, side * LINE_SIZE + word)[0]

    def until_waiting(self, side, by=(BY_PIPE, BY_WORD)):
        deadline = time.monotonic() + 60
        while self.peek(side, WAITING) not in by:
            assert time.monotonic() < deadline
            time.sleep(0)

    def close(self):
        for end in self.ends:
            end.close()
        self.extent.close()


@pytest.fixture
def channel():
    made = Channel()
    yield made
    made.close()


@pytest.fixture
def channels():
    made = [Channel() for _ in range(4)]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def waiter():
    made = Waiter(spin_limit_ns=0)
    yield made
    made.close()


def descriptors():
    """Open descriptors, without the one that lists them."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return {fd for fd in numbers if Path(f"/proc/self/fd/{fd}").is_symlink()}


class Sleeper(threading.Thread):
    """Runs one wait in another thread and keeps its result."""

    def __init__(self, wait):
        super().__init__(daemon=True)
        self._wait = wait
        self.result = None
        self.start()

    def run(self):
        try:
            self.result = self._wait()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.result = error

    def woken(self):
        self.join(60)
        assert not self.is_alive()
        return self.result


# ---- one endpoint


def test_an_event_is_taken_once(channel):
    ours, theirs = channel.ends
    assert not theirs.take()
    ours.notify()
    ours.notify()
    assert theirs.take()
    assert not theirs.take()
    assert not ours.take(), "the other direction is another one"


def test_a_notification_to_somebody_awake_makes_no_system_call(channel):
    ours, theirs = channel.ends
    ours.notify()
    assert ours.statistics().rung == 0
    assert theirs.wait(-1)
    assert theirs.statistics().sleeps == 0


def test_an_event_is_untaken_until_its_receiver_has_taken_it(channel):
    ours, theirs = channel.ends
    assert not ours.untaken
    ours.notify()
    assert (ours.untaken, theirs.untaken) == (True, False)
    assert theirs.take()
    assert not ours.untaken


def test_a_sleeper_is_rung_once(channel):
    ours, theirs = channel.ends
    sleeper = Sleeper(lambda: theirs.wait(DEADLINE_NS, 0))
    channel.until_waiting(1, (BY_PIPE,))  # between the word and the pipe it is awake for a moment
    assert ours.peer_asleep
    ours.notify()
    assert sleeper.woken() is True
    assert not ours.peer_asleep
    assert (theirs.statistics().sleeps, theirs.statistics().wakeups, ours.statistics().rung) == (1, 1, 1)
    assert channel.peek(1, WAITING) == 0


def test_who_polls_the_descriptor_itself_is_rung_once_for_each_time_it_arms(channel):
    sender, receiver, pipe = channel.ends[0], channel.ends[1], channel.raw_ends[1].rx
    for _ in range(2):
        receiver.arm()
        assert not receiver.take()
        sender.notify()
        sender.notify()
        assert os.read(pipe, 100) == b"\x01" and receiver.take()
        sender.notify()
        with pytest.raises(BlockingIOError):
            os.read(pipe, 100)
        assert receiver.take()


def test_of_two_notifications_to_a_sleeper_one_writes_the_pipe(channel):
    ours, theirs = channel.ends
    channel.poke(1, WAITING, 1)
    ours.notify()
    ours.notify()
    assert channel.peek(1, WAITING) == 0
    assert ours.statistics().rung == 1
    assert theirs.take()


def test_a_wait_without_event_times_out(channel):
    began = time.monotonic_ns()
    assert channel.ends[0].wait(3_000_000, 0) is False
    assert time.monotonic_ns() - began >= 3_000_000
    assert channel.ends[0].wait(0) is False


def test_a_spin_ends_at_the_timeout(channel):
    began = time.monotonic_ns()
    assert channel.ends[0].wait(3_000_000, spin_ns=DEADLINE_NS) is False
    assert time.monotonic_ns() - began >= 3_000_000


def test_a_spin_that_hits_does_not_sleep(channel):
    ours, theirs = channel.ends
    channel.poke(0, CPU, 1 << 20)  # whoever is polled for runs elsewhere
    spinner = Sleeper(lambda: theirs.wait(DEADLINE_NS, DEADLINE_NS))
    ours.notify()
    assert spinner.woken() is True
    assert theirs.statistics().sleeps == 0


@pytest.fixture
def one_cpu():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


def asleep_on(cpu):
    return (-2 - cpu) % 2**32


@pytest.mark.parametrize("where", [lambda cpu: cpu, asleep_on], ids=["running", "asleep"])
def test_spinning_for_a_peer_on_the_same_cpu_yields_it(channel, one_cpu, where):
    channel.poke(0, CPU, where(one_cpu))
    assert channel.ends[1].wait(2_000_000, 1_000_000) is False
    assert channel.ends[1].statistics().yields > 0


@pytest.mark.parametrize("where", [lambda cpu: cpu + 1, lambda cpu: asleep_on(cpu + 1)], ids=["running", "asleep"])
def test_spinning_for_a_peer_on_another_cpu_does_not_yield(channel, one_cpu, where):
    channel.poke(0, CPU, where(one_cpu))
    assert channel.ends[1].wait(2_000_000, 1_000_000) is False
    assert channel.ends[1].statistics().yields == 0


def test_a_waiter_yields_only_if_no_running_peer_is_elsewhere(channels, one_cpu):
    def yields(*peers):
        waiter = Waiter()
        for number, peer in enumerate(peers):
            channels[number].poke(0, CPU, peer)
            waiter.add(1 + number, channels[number].ends[1])
        waiter.wait(1_000_000)
        waiter.close()
        return waiter.statistics().yields

    here, there = one_cpu, one_cpu + 1
    assert yields(here, asleep_on(there)) > 0
    assert yields(asleep_on(here), asleep_on(here)) > 0
    assert yields(here, there) == 0
    assert yields(asleep_on(here), asleep_on(there)) == 0


def test_closing_wakes_the_survivor_whatever_it_advertises(channel):
    ours, theirs = channel.ends
    sleeper = Sleeper(lambda: theirs.wait(DEADLINE_NS, 0))
    channel.until_waiting(1)
    channel.poke(1, WAITING, 0)  # as if a notifier had died between the exchange and the pipe
    assert not theirs.peer_closed
    ours.mark_closed()
    assert sleeper.woken() is True
    assert theirs.peer_closed
    ours.mark_open()
    assert not theirs.peer_closed


def test_a_kick_wakes_one_whose_notifier_died_half_way(channel):
    ours, theirs = channel.ends
    sleeper = Sleeper(lambda: theirs.wait(DEADLINE_NS, 0))
    channel.until_waiting(1)
    channel.poke(1, WAITING, 0)
    channel.poke(1, PENDING, 1)
    ours.kick()
    assert sleeper.woken() is True
    assert not theirs.peer_closed


def test_a_dead_sending_end_is_never_slept_on(channel):
    ours, theirs = channel.ends
    sleeper = Sleeper(lambda: theirs.wait(DEADLINE_NS, 0))
    channel.until_waiting(1)
    ours.close()
    assert sleeper.woken() is True
    assert theirs.peer_closed
    assert theirs.wait(-1) is True


def test_notifying_a_dead_receiver_is_no_error_even_with_the_deadly_sigpipe(channel):
    ours, theirs = channel.ends
    theirs.close()
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        ours.kick()
        ours.notify()
        assert signal.SIGPIPE not in signal.sigpending()
        assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_a_receiver_that_never_drains_blocks_nobody(channel):
    ours, theirs = channel.ends
    for _ in range(2 * PAGE_SIZE):
        ours.kick()
    assert theirs.wait(0) is True
    assert theirs.wait(1, 0) is False


def test_an_endpoint_of_one_direction_only_sends_or_only_receives():
    descriptors = create_channel()
    sender = open_endpoint(descriptors.page_fd, 0, -1, descriptors.ends[0].tx)
    receiver = open_endpoint(descriptors.page_fd, 1, descriptors.ends[1].rx, -1)
    sender.notify()
    assert receiver.wait(DEADLINE_NS)
    receiver.kick()
    with pytest.raises(LocalError, match="only sends"):
        sender.wait(0)
    with pytest.raises(LocalError, match="cannot receive"):
        Waiter().add(1, sender)
    sender.close()
    receiver.close()
    for fd in (descriptors.page_fd, descriptors.ends[0].rx, descriptors.ends[1].tx):
        os.close(fd)


def test_an_endpoint_owns_its_descriptors_and_closes_them_once(channel):
    before = descriptors()
    channel.ends[0].close()
    channel.ends[0].close()
    gone = before - descriptors()
    assert gone == {channel.raw_ends[0].rx, channel.raw_ends[0].tx}


@pytest.mark.parametrize(
    "use",
    [
        lambda end: end.notify(),
        lambda end: end.kick(),
        lambda end: end.take(),
        lambda end: end.wait(0),
        lambda end: end.mark_closed(),
        lambda end: end.mark_open(),
        lambda end: end.peer_closed,
        lambda end: end.peer_asleep,
        lambda end: end.untaken,
        lambda end: Waiter().add(1, end),
    ],
)
def test_a_closed_endpoint_is_refused(channel, use):
    channel.ends[0].close()
    with pytest.raises(LocalError, match="closed"):
        use(channel.ends[0])


def test_an_endpoint_that_was_refused_took_nothing():
    descriptors = create_channel()
    with pytest.raises(LocalError, match="side"):
        open_endpoint(descriptors.page_fd, 2, descriptors.ends[0].rx, descriptors.ends[0].tx)
    with pytest.raises(LocalError, match="page"):
        Endpoint(bytearray(128), 0, descriptors.ends[0].rx, descriptors.ends[0].tx)
    with pytest.raises(LocalError, match="writable"):
        Endpoint(bytes(PAGE_SIZE), 0, descriptors.ends[0].rx, descriptors.ends[0].tx)
    descriptors.close()  # each of them still open


def test_a_page_that_is_no_extent_is_the_peers_fault():
    descriptors = create_channel()
    with pytest.raises(PeerFault):
        open_endpoint(descriptors.ends[0].rx, 0, descriptors.ends[0].rx, descriptors.ends[0].tx)
    descriptors.close()


def test_a_descriptor_that_could_block_is_made_not_to():
    descriptors = create_channel()
    os.set_blocking(descriptors.ends[0].rx, True)
    end = open_endpoint(descriptors.page_fd, 0, descriptors.ends[0].rx, -1)
    assert not os.get_blocking(descriptors.ends[0].rx)
    end.close()
    for fd in (descriptors.page_fd, descriptors.ends[0].tx, descriptors.ends[1].rx, descriptors.ends[1].tx):
        os.close(fd)


def test_a_signal_handler_may_end_a_wait(channel):
    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_ident()

    def shoot():
        channel.until_waiting(1, (BY_PIPE,))  # it stays there; on the word it may be about to go on at the pipe
        while channel.peek(1, WAITING):  # until it arrives: once may be just before the system call
            signal.pthread_kill(main, signal.SIGUSR1)

    shooter = threading.Thread(target=shoot)
    try:
        shooter.start()
        with pytest.raises(Interrupted):
            channel.ends[1].wait(DEADLINE_NS, 0)
    finally:
        while True:
            try:
                shooter.join()
                break
            except Interrupted:
                continue
        signal.signal(signal.SIGUSR1, before)


def test_while_one_thread_waits_another_can_neither_wait_nor_close(channel):
    ours, theirs = channel.ends
    sleeper = Sleeper(lambda: theirs.wait(DEADLINE_NS, 0))
    channel.until_waiting(1)
    for use in (theirs.close, lambda: theirs.wait(0), lambda: Waiter().add(1, theirs)):
        with pytest.raises(LocalError):
            use()
    ours.notify()
    assert sleeper.woken() is True


# ---- a waiter over many


@pytest.fixture
def bound(channels, waiter):
    """Ports 10, 11, 12, 13: side 1 of each channel."""
    for number, one in enumerate(channels):
        waiter.add(10 + number, one.ends[1])
    yield channels
    waiter.close()


def test_a_waiter_hands_out_every_port_that_rang(bound, waiter):
    assert waiter.wait(0) == ()
    bound[3].ends[0].notify()
    bound[1].ends[0].notify()
    assert sorted(waiter.wait(-1)) == [11, 13]
    assert waiter.wait(0) == ()
    assert waiter.wait(1_000_000) == ()


def test_a_port_that_rings_a_sleeping_waiter_wakes_it(bound, waiter):
    sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
    for one in bound:
        one.until_waiting(1)
    bound[2].ends[0].notify()
    assert sleeper.woken() == (12,)
    assert waiter.statistics().sleeps == 1
    assert waiter.wait(0) == ()


def test_a_quiet_port_still_wakes_after_many_sleeps(bound, waiter):
    for _ in range(20):  # long enough that the others are left armed for good
        sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
        bound[0].until_waiting(1)
        bound[0].ends[0].notify()
        assert sleeper.woken() == (10,)
    assert bound[1].peek(1, WAITING) == 1
    bound[1].ends[0].notify()
    assert waiter.wait(DEADLINE_NS) == (11,)
    assert bound[1].peek(1, WAITING) == 0
    bound[1].ends[0].notify()
    assert bound[1].ends[0].statistics().rung == 1, "awake again, it is polled"
    assert waiter.wait(DEADLINE_NS) == (11,)


def test_a_masked_port_waits_until_it_is_unmasked(bound, waiter):
    waiter.mask(10)
    bound[0].ends[0].notify()
    assert waiter.wait(0) == ()
    assert waiter.wait(1_000_000) == ()
    waiter.unmask(10)
    assert waiter.wait(-1) == (10,)
    waiter.unmask(10)
    assert waiter.wait(0) == ()


def test_a_port_active_lately_is_polled_after_a_sleep_that_another_ended(bound, waiter):
    sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
    bound[1].until_waiting(1)
    bound[0].ends[0].kick()
    assert sleeper.woken() == (10,)
    assert bound[1].peek(1, WAITING) == 0


def test_a_port_masked_while_it_is_armed_is_not_lost_and_not_rung(bound, waiter):
    for _ in range(20):
        assert waiter.wait(1) == ()
    assert bound[0].peek(1, WAITING) == 1
    waiter.mask(10)
    bound[0].ends[0].notify()
    assert bound[0].ends[0].statistics().rung == 0
    bound[1].ends[0].notify()
    assert waiter.wait(-1) == (11,)
    waiter.unmask(10)
    assert waiter.wait(-1) == (10,)


def test_delivery_masks_if_asked_and_further_events_collapse(bound, waiter):
    bound[0].ends[0].notify()
    assert waiter.wait(-1, mask_delivered=True) == (10,)
    bound[0].ends[0].notify()
    bound[0].ends[0].notify()
    bound[1].ends[0].notify()
    assert waiter.wait(-1, mask_delivered=True) == (11,)
    assert waiter.wait(1_000_000, mask_delivered=True) == ()
    waiter.unmask(10)
    assert waiter.wait(-1, mask_delivered=True) == (10,)
    waiter.unmask(10)
    waiter.unmask(11)
    assert waiter.wait(0) == ()


def test_a_port_whose_sender_is_gone_is_told_once(bound, waiter):
    bound[1].ends[0].close()
    assert waiter.wait(DEADLINE_NS) == (11,)
    assert bound[1].ends[1].peer_closed
    sleeps = waiter.statistics().sleeps
    assert waiter.wait(1_000_000) == ()
    assert waiter.statistics().sleeps == sleeps + 1, "the dead pipe does not wake it over and over"
    bound[0].ends[0].notify()
    assert waiter.wait(DEADLINE_NS) == (10,)


def test_a_masked_port_whose_sender_is_gone_is_told_when_unmasked(bound, waiter):
    waiter.mask(11)
    bound[1].ends[0].close()
    assert waiter.wait(1_000_000) == ()
    waiter.unmask(11)
    assert waiter.wait(-1) == (11,)
    assert waiter.wait(0) == ()


def test_a_closed_channel_is_a_ready_port(bound, waiter):
    sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
    bound[2].until_waiting(1)
    bound[2].ends[0].mark_closed()
    assert sleeper.woken() == (12,)
    assert bound[2].ends[1].peer_closed


def test_a_removed_port_is_silent_and_its_endpoint_usable_again(bound, waiter):
    waiter.wait(1)
    waiter.remove(10)
    bound[0].ends[0].notify()
    assert waiter.wait(0) == ()
    assert bound[0].ends[1].wait(-1)
    waiter.add(20, bound[0].ends[1])
    bound[0].ends[0].notify()
    assert waiter.wait(-1) == (20,)


def test_binding_twice_is_refused(bound, waiter):
    with pytest.raises(LocalError, match="port 10 is bound"):
        waiter.add(10, bound[0].ends[0])
    with pytest.raises(LocalError, match="elsewhere"):
        waiter.add(14, bound[0].ends[1])
    with pytest.raises(LocalError, match="not positive"):
        waiter.add(0, bound[0].ends[0])
    with pytest.raises(LocalError, match="wait there"):
        bound[0].ends[1].wait(0)
    with pytest.raises(LocalError, match="remove its port"):
        bound[0].ends[1].close()
    assert bound[0].ends[0].wait(0) is False, "what was refused is not bound"


@pytest.mark.parametrize("verb", ["remove", "mask", "unmask", "detach_ring"])
def test_an_unknown_port_is_refused(bound, waiter, verb):
    with pytest.raises(LocalError, match="port 99 is not bound"):
        getattr(waiter, verb)(99)


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip(f"needs 5,000 descriptors, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_waiter_binds_4096_ports_and_not_one_more(channel, waiter, many_descriptors):
    ends = [Endpoint(channel.extent.view, 1, os.dup(channel.raw_ends[1].rx), -1) for _ in range(4097)]
    for port, end in enumerate(ends[:-1], 1):
        waiter.add(port, end)
    with pytest.raises(LocalError, match="at most 4096 ports"):
        waiter.add(4097, ends[-1])
    channel.ends[0].notify()
    assert len(waiter.wait(0)) == 1, "these share one page: the first to look takes the event"
    waiter.close()
    for end in ends:
        end.close()


def test_watched_descriptors_are_reported_by_token_until_they_are_read(bound, waiter):
    reader, writer = os.pipe()
    waiter.watch_fd(-7, reader)
    os.write(writer, b"x")
    bound[0].ends[0].notify()
    seen = set(waiter.wait(-1))
    seen.update(waiter.wait(-1))
    assert seen == {-7, 10}
    assert waiter.wait(0) == (-7,)
    os.read(reader, 1)
    assert waiter.wait(0) == ()
    waiter.unwatch_fd(-7)
    os.write(writer, b"x")
    assert waiter.wait(0) == ()
    os.close(reader)
    os.close(writer)


def test_a_waiter_that_never_sleeps_still_sees_its_descriptors(bound, waiter):
    reader, writer = os.pipe()
    waiter.watch_fd(-1, reader)
    os.write(writer, b"x")
    deadline = time.monotonic() + 60
    seen = ()
    while -1 not in seen:
        assert time.monotonic() < deadline
        bound[0].ends[0].notify()
        seen = waiter.wait(-1)
        assert 10 in seen
    waiter.unwatch_fd(-1)
    os.close(reader)
    os.close(writer)


def test_a_waiter_that_never_sleeps_still_sees_its_quiet_ports(bound, waiter):
    for _ in range(20):
        waiter.wait(1)
    assert bound[1].peek(1, WAITING) == 1
    bound[1].ends[0].notify()
    deadline = time.monotonic() + 60
    seen = ()
    while 11 not in seen:
        assert time.monotonic() < deadline
        bound[0].ends[0].notify()
        seen = waiter.wait(-1)


@pytest.mark.parametrize(("token", "match"), [(0, "not negative"), (5, "not negative"), (-1, "watched already")])
def test_a_token_is_negative_and_its_own(waiter, token, match):
    reader, writer = os.pipe()
    waiter.watch_fd(-1, reader)
    with pytest.raises(LocalError, match=match):
        waiter.watch_fd(token, reader)
    with pytest.raises(LocalError, match="cannot be waited on"):
        waiter.watch_fd(-2, 1 << 20)
    with pytest.raises(LocalError, match="not watched"):
        waiter.unwatch_fd(-9)
    waiter.unwatch_fd(-1)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def ring_memory():
    return bytearray(PAGE_SIZE)


def test_work_on_an_attached_ring_makes_its_port_ready(bound, waiter, ring_memory):
    front = FrontRing(ring_memory, 8, 8)
    front.init()
    back = BackRing(ring_memory, 8, 8)
    waiter.attach_ring(12, back)
    front.push(b"x")  # and nobody rings
    assert waiter.wait(-1) == (12,)
    assert waiter.wait(-1) == (12,), "it was not popped"
    back.pop()
    assert waiter.wait(0) == ()
    front.push(b"x")
    bound[2].ends[0].notify()
    assert waiter.wait(-1) == (12,), "once, for the ring and the event"
    bound[2].ends[0].kick()
    assert waiter.wait(0) == (12,), "once, for the ring, the event and the byte in the pipe"
    back.pop()
    assert waiter.wait(0) == ()
    waiter.detach_ring(12)
    front.push(b"x")
    assert waiter.wait(0) == ()


def test_a_waiter_arms_the_ring_before_it_sleeps(bound, waiter, ring_memory):
    front = FrontRing(ring_memory, 8, 8)
    front.init()
    back = BackRing(ring_memory, 8, 8)
    waiter.attach_ring(10, back)
    front.push(b"x")
    waiter.wait(-1)
    back.pop()
    assert front.push(b"x") is False, "awake: no notification wanted"
    waiter.wait(-1)
    back.pop()
    sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
    bound[0].until_waiting(1)
    assert front.push(b"x") is True
    bound[0].ends[0].notify()
    assert sleeper.woken() == (10,)


def test_a_ring_the_peer_broke_makes_its_port_ready_once(bound, waiter, ring_memory):
    front = FrontRing(ring_memory, 8, 8)
    front.init()
    back = BackRing(ring_memory, 8, 8)
    waiter.attach_ring(10, back)
    struct.pack_into("<I", ring_memory, 0, 0x7FFF_FFFF)
    assert waiter.wait(-1) == (10,)
    with pytest.raises(PeerFault):
        back.pop()
    assert waiter.wait(0) == ()
    assert waiter.wait(1) == ()


def test_a_ring_belongs_to_one_port_and_is_not_closed_under_it(bound, waiter, ring_memory):
    ring = FrontRing(ring_memory, 8, 8)
    other = FrontRing(ring_memory, 8, 8)
    waiter.attach_ring(10, ring)
    with pytest.raises(LocalError, match="attached to a port"):
        waiter.attach_ring(11, ring)
    with pytest.raises(LocalError, match="detach it first"):
        ring.close()
    waiter.remove(10)
    ring.close()
    waiter.attach_ring(11, other)
    waiter.close()
    other.close()


def test_a_port_may_have_two_rings_and_each_goes_by_itself(bound, waiter):
    memories = [bytearray(4096) for _ in range(3)]
    fronts, backs = [FrontRing(memory, 8, 8) for memory in memories], [BackRing(memory, 8, 8) for memory in memories]
    for front, back in zip(fronts[:2], backs, strict=False):
        front.init()
        waiter.attach_ring(10, back)
    with pytest.raises(LocalError, match="two rings already"):
        waiter.attach_ring(10, backs[2])
    waiter.wait(0)
    for front, back in zip(fronts[:2], backs, strict=False):
        front.push(b"x")
        assert waiter.wait(0) == (10,)
        back.pop()
        assert waiter.wait(0) == ()
    fronts[1].push(b"y")
    waiter.detach_ring(10, backs[0])
    assert waiter.wait(0) == (10,)
    waiter.detach_ring(10, backs[0])
    waiter.detach_ring(10, backs[1])
    assert waiter.wait(0) == ()
    for back in backs:
        back.close()


@pytest.mark.parametrize("junk", [1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF])
@pytest.mark.parametrize("spin_limit_ns", [0, 100_000])
def test_junk_in_every_shared_word_harms_no_other_channel(channels, junk, spin_limit_ns):
    waiter = Waiter(spin_limit_ns)
    for number, one in enumerate(channels):
        waiter.add(10 + number, one.ends[1])
    hostile = channels[0]
    for word in range(0, 2 * LINE_SIZE, 4):
        struct.pack_into("<I", hostile.extent.view, word, junk)
    for _ in range(100):
        hostile.ends[0].kick()
    channels[1].ends[0].notify()
    seen = set(waiter.wait(DEADLINE_NS))
    while 11 not in seen:
        seen.update(waiter.wait(DEADLINE_NS))
    hostile.ends[1].notify()
    waiter.close()


def test_a_hostile_flood_of_bytes_without_events_wakes_nobody_for_long(bound, waiter):
    waiter.wait(1)
    for _ in range(PAGE_SIZE):
        bound[0].ends[0].kick()
    bound[0].poke(1, PENDING, 0)
    began = time.monotonic_ns()
    assert waiter.wait(2_000_000) == ()
    assert time.monotonic_ns() - began >= 2_000_000
    bound[1].ends[0].notify()
    assert waiter.wait(DEADLINE_NS) == (11,)


def test_while_one_thread_waits_another_cannot_change_what_it_waits_on(bound, waiter):
    sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
    bound[0].until_waiting(1)
    for use in (
        lambda: waiter.wait(0),
        lambda: waiter.mask(10),
        lambda: waiter.unmask(10),
        lambda: waiter.remove(10),
        lambda: waiter.unwatch_fd(-1),
        waiter.close,
        bound[0].ends[1].close,
    ):
        with pytest.raises(LocalError):
            use()
    bound[0].ends[0].notify()
    assert sleeper.woken() == (10,)


def test_a_closed_waiter_lets_its_endpoints_go(bound, waiter):
    waiter.close()
    waiter.close()
    for one in bound:
        assert one.ends[1].wait(0) is False
    for use in (lambda: waiter.wait(0), lambda: waiter.add(1, bound[0].ends[1]), lambda: waiter.watch_fd(-1, 0)):
        with pytest.raises(LocalError, match="closed"):
            use()


def test_a_forgotten_waiter_lets_its_endpoints_go(channel):
    Waiter().add(1, channel.ends[1])
    assert channel.ends[1].wait(0) is False


def test_statistics_are_a_frozen_copy(channel):
    statistics = channel.ends[0].statistics()
    channel.ends[0].notify()
    assert statistics.notified == 0
    with pytest.raises(AttributeError):
        statistics.notified = 5
    assert channel.ends[0].statistics().notified == 1


def test_a_waiter_polls_by_what_it_observes_unless_it_is_told_for_how_long(channel):
    """A wait that ended with nothing takes the budget away; a pinned one stays."""
    waiter = Waiter()
    waiter.add(1, channel.ends[0])
    assert waiter.spin_ns == -1
    waiter.wait(1_000_000)
    waiter.wait(1_000_000)
    adaptive = waiter.statistics().spins_missed
    waiter.spin_ns = 50_000
    waiter.wait(1_000_000)
    waiter.wait(1_000_000)
    assert waiter.statistics().spins_missed == adaptive + 2
    waiter.spin_ns = 0
    waiter.wait(1_000_000)
    assert waiter.statistics().spins_missed == adaptive + 2
    assert adaptive <= 1
    waiter.close()


def test_a_waiter_gives_up_polling_where_others_want_its_cpu(channel, one_cpu):
    """Its budget is long by then, and somebody who never sleeps runs on the same CPU."""
    channel.poke(0, CPU, one_cpu + 1)
    waiter = Waiter(spin_limit_ns=DEADLINE_NS)
    waiter.add(1, channel.ends[1])

    def wait_for_an_event():
        sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
        channel.until_waiting(1)
        channel.ends[0].notify()
        assert sleeper.woken() == (1,)

    while waiter.statistics().sleeps < BUDGET_DOUBLES:
        wait_for_an_event()
    busy = subprocess.Popen([sys.executable, "-SEIc", "while True: pass"])
    try:
        until = time.monotonic() + 60
        while waiter.statistics().crowded == 0:
            assert time.monotonic() < until
            wait_for_an_event()
    finally:
        busy.kill()
        busy.wait()
    waiter.close()


def test_a_byte_that_woke_an_endpoint_does_not_wake_it_again(channel):
    """It is taken from the pipe before the next sleep there, and no event with it."""
    receiver, sender = channel.ends
    sleeper = Sleeper(lambda: receiver.wait(DEADLINE_NS, 0))
    channel.until_waiting(0, (BY_PIPE,))
    sender.notify()
    assert sleeper.woken() is True
    before = receiver.statistics()
    assert not receiver.wait(LONGER_THAN_ON_THE_WORD_NS, 0)
    after = receiver.statistics()
    assert (after.sleeps, after.lasted, after.taken) == (before.sleeps + 1, before.lasted + 1, before.taken)


def test_a_sleeper_on_the_word_is_woken_without_a_byte():
    """One of fifty at least, on a machine that is so busy that the others were asleep for long."""

    def woken_without_a_byte():
        channel = Channel()
        receiver, sender = channel.ends
        sleeper = Sleeper(lambda: receiver.wait(DEADLINE_NS, 0))
        channel.until_waiting(0)
        sender.notify()
        assert sleeper.woken() is True
        lasted = receiver.statistics().lasted
        if not lasted:
            assert (receiver.statistics().sleeps, sender.statistics().rung) == (1, 1)
            with pytest.raises(BlockingIOError):
                os.read(channel.raw_ends[0].rx, 1)
        channel.close()
        return not lasted

    assert any(woken_without_a_byte() for _ in range(50))


def test_a_wait_that_lasts_goes_on_at_the_pipe_and_is_rung_there(channel):
    receiver, sender = channel.ends
    sleeper = Sleeper(lambda: receiver.wait(-1, 0))
    channel.until_waiting(0, (BY_PIPE,))
    sender.notify()
    assert sleeper.woken() is True
    statistics = receiver.statistics()
    assert (statistics.sleeps, statistics.lasted, sender.statistics().rung) == (1, 1, 1)
    assert os.read(channel.raw_ends[0].rx, 2) == b"\x01"


def test_a_sender_that_is_gone_is_seen_by_a_wait_however_short(channel):
    receiver, sender = channel.ends
    sender.close()
    assert receiver.wait(1_000, 0) is True
    assert receiver.peer_closed


def test_a_deadline_that_is_beyond_every_clock_is_none(channel):
    receiver, sender = channel.ends
    sleeper = Sleeper(lambda: receiver.wait(2**63 - 1, 0))
    channel.until_waiting(0, (BY_PIPE,))
    sender.notify()
    assert sleeper.woken() is True


@pytest.fixture
def shooting():
    """Signals whose handler does nothing, at this thread, as long as the test runs; how many have come."""
    came: list[None] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: came.append(None))
    main, done = threading.get_ident(), threading.Event()

    def shoot():
        while not done.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0)

    shooter = threading.Thread(target=shoot)
    shooter.start()
    yield came
    done.set()
    shooter.join()
    signal.signal(signal.SIGUSR1, before)


def test_signals_by_the_thousand_neither_end_a_wait_nor_lose_an_event(channel, shooting):
    """They come before the sleep, in it and behind it; the wait goes on each time."""
    receiver, sender = channel.ends

    def answer():
        while sender.wait(DEADLINE_NS, 0) and not sender.peer_closed:
            sender.notify()

    answerer = threading.Thread(target=answer)
    answerer.start()
    rounds = 0
    while rounds < 1000 or len(shooting) < 1000:
        receiver.notify()
        assert receiver.wait(DEADLINE_NS, 0) is True
        rounds += 1
    receiver.mark_closed()
    answerer.join(60)
    assert not answerer.is_alive()
    assert receiver.statistics().taken == rounds


def test_signals_by_the_thousand_do_not_put_off_a_deadline(channel, shooting):
    while len(shooting) < 1000:
        began = time.monotonic_ns()
        assert channel.ends[0].wait(LONGER_THAN_ON_THE_WORD_NS, 0) is False
        assert time.monotonic_ns() - began >= LONGER_THAN_ON_THE_WORD_NS


def test_an_event_that_comes_with_a_stale_byte_in_the_pipe_is_taken(channel):
    receiver, sender = channel.ends
    for _ in range(3):
        sender.kick()
        assert receiver.wait(DEADLINE_NS, 0)
    assert not receiver.wait(1_000_000, 0)


def test_a_sender_that_is_gone_behind_a_stale_byte_is_seen(channel):
    receiver, sender = channel.ends
    sender.kick()
    assert receiver.wait(DEADLINE_NS, 0)
    sender.close()
    assert receiver.wait(DEADLINE_NS, 0)
    assert receiver.peer_closed


# ---- what nobody notified of -----------------------------------------------------------------------------------------


@pytest.fixture
def lonely_ring(bound, waiter):
    """A ring attached to port 10 whose other end publishes and does not notify."""
    memory = bytearray(PAGE_SIZE)
    front = FrontRing(memory, 64, 64)
    front.init()
    back = BackRing(memory, 64, 64)
    waiter.attach_ring(10, back)
    yield front, back
    waiter.detach_ring(10)
    back.close()
    front.close()


def test_work_that_nobody_notified_of_is_found_and_counted(lonely_ring, bound, waiter):
    front, back = lonely_ring
    sleeper = Sleeper(lambda: waiter.wait(DEADLINE_NS))
    bound[0].until_waiting(1)
    front.push(b"lost")
    assert sleeper.woken() == (10,)
    assert back.pop().startswith(b"lost")
    assert waiter.statistics().found == 1


def test_work_of_a_port_that_is_left_armed_is_found_too(lonely_ring, bound, waiter):
    front, back = lonely_ring
    for _ in range(20):
        assert waiter.wait(1) == ()
    front.push(b"lost")
    assert waiter.wait(DEADLINE_NS) == (10,)
    assert back.pop().startswith(b"lost")


def test_a_masked_port_is_not_looked_at(lonely_ring, bound, waiter):
    front, _ = lonely_ring
    waiter.mask(10)
    front.push(b"lost")
    assert waiter.wait(1_500_000_000) == ()
    waiter.unmask(10)
    assert waiter.wait(DEADLINE_NS) == (10,)


def test_a_consoles_bytes_that_nobody_notified_of_are_found_once(bound, waiter):
    page = bytearray(PAGE_SIZE)
    front, back = ConsoleFront(page), ConsoleBack(page)
    waiter.attach_console(11, back)
    front.write(b"lost")
    assert waiter.wait(DEADLINE_NS) == (11,)
    assert waiter.wait(30_000_000) == (), "nobody has taken them, and they are no news"
    front.write(b"more")
    assert waiter.wait(DEADLINE_NS) == (11,)
    waiter.detach_console(11)
    front.write(b"again")
    assert waiter.wait(1_100_000_000) == ()
    assert waiter.statistics().found == 2


def test_a_consoles_bytes_are_found_by_a_wait_that_begins_when_a_look_is_due(bound, waiter):
    """At its begin the port is polled, and not looked into: the bytes are news behind that as well."""
    page = bytearray(PAGE_SIZE)
    front, back = ConsoleFront(page), ConsoleBack(page)
    waiter.attach_console(11, back)
    front.write(b"lost")
    time.sleep(LONGER_THAN_BETWEEN_LOOKS_S)
    assert waiter.wait(DEADLINE_NS) == (11,)
    assert waiter.statistics().found == 1


def test_a_side_is_told_that_the_other_has_gone_and_the_other_is_not():
    made = create_channel()
    try:
        sends_to_1 = open_endpoint(made.page_fd, 0, -1, os.dup(made.ends[0].tx))
        assert not is_closed(made.page_fd, 1)
        sends_to_1.mark_closed()
        assert [is_closed(made.page_fd, side) for side in (0, 1)] == [False, True]
        sends_to_1.mark_open()
        assert not is_closed(made.page_fd, 1)
        sends_to_1.close()
    finally:
        made.close()
