"""What a domain writes to its upcall socket, hypercalls as it comes to life and a fault notice; and what it is told."""

import contextlib
import os
import select
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hvd.broker import hurries
from hvd.broker.domain import Domain, Life
from hvd.broker.held import UPCALL, HeldDescriptors, domain_key
from hvd.broker.hurries import TOLD_NS
from hvd.broker.poller import Poller
from hvd.broker.upcall_sockets import (
    BRINGING_MAX,
    OUTBOX_DESCRIPTORS_MAX,
    OUTBOX_MAX,
    POSTS_PER_TURN,
    TURN_NS,
    UpcallSockets,
)
from hvd.broker.upcalls import UpcallQueue
from hvd.transport.codec import pack_request
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE, receive_message
from hvd.transport.fault_notice import NOTICE
from hvd.transport.ids import DomId
from hvd.transport.messages import DomainConfig, DomainReady
from hvd.transport.upcalls import DESCRIPTORS, EVENT, HURRY, HURRY_CALLS

DOM = DomId(1)
POST = pack_request(DomainReady(), 1, 0, 0)
FAULT = NOTICE.pack(11, 1, 0, 0)


class Ends:
    """The broker's end of one domain's upcall socket, and the domain's."""

    def __init__(self, on_crash="destroy"):
        self.domain = Domain(DOM, DomainConfig("d", "hvd:idle", on_crash=on_crash), "d", created_ns=0)
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours = ours
        ours.setblocking(False)
        self.heard: list[bytes] = []
        self.faults: list[Any] = []
        self.act = lambda body: None
        self.killed: list[DomId] = []
        descriptors = [-1, -1]
        descriptors[UPCALL] = ours.fileno()
        self.link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.held = HeldDescriptors(self.link[0], {domain_key(DOM): descriptors})
        self.by_key = self.held.by_key
        self.poller, self.queue = Poller(), UpcallQueue()
        self.disturbed: set[DomId] = set()
        self.settling: set[DomId] = set()
        self.directories: dict[str, dict[str, bytes]] = {}
        self.dropped: list[DomId] = []
        self.rung: list[DomId] = []
        self.now = 0
        self.sockets = UpcallSockets(
            self.held, self.poller, lambda *_, **__: None, kill=self.killed.append,
            on_fault=lambda domain, notice: self.faults.append(notice), on_post=self.post,
            is_disturbed=self.disturbed.__contains__, is_settling=self.settling.__contains__,
            read=lambda domid, path: self.directories.get(path),
            on_drop=self.dropped.append, ring=self.rung.append, clock_ns=lambda: self.now,
        )  # fmt: skip
        self.sockets.connect({DOM: self.queue})
        self.sockets.listen(self.domain)

    def post(self, domain, body):
        assert domain is self.domain
        assert self.ours.recv(1, socket.MSG_PEEK), "it stays in the socket until it is in the journal"
        self.heard.append(body)
        self.act(body)

    def turn(self):
        self.poller.poll(0)

    @property
    def waits(self):
        return bool(select.select([self.ours], [], [], 0)[0])

    def close(self):
        self.poller.unwatch(self.ours.fileno())
        for each in (self.ours, self.theirs, *self.link):
            each.close()


class Clock:
    """The monotonic clock of hurries: time passes as a test says."""

    now = 5_000_000_000

    def monotonic_ns(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(hurries, "time", made)
    return made


@pytest.fixture
def ends(request):
    made = Ends(*getattr(request, "param", ()))
    yield made
    made.close()


def test_a_post_is_heard_once_and_taken_from_the_socket(ends):
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]
    assert not ends.waits
    ends.turn()
    assert ends.heard == [POST]


def test_a_broker_that_dies_before_it_has_journaled_leaves_the_post_to_the_next(ends):
    def die(body):
        raise SystemExit

    ends.theirs.send(POST)
    ends.act = die
    with pytest.raises(SystemExit):
        ends.turn()
    ends.act = lambda body: None
    ends.turn()
    assert ends.heard == [POST, POST]
    assert not ends.waits


def test_whoever_posts_without_end_lets_others_have_their_turns(ends):
    for _ in range(POSTS_PER_TURN + 1):
        ends.theirs.send(POST)
    ends.turn()
    assert len(ends.heard) == POSTS_PER_TURN
    ends.turn()
    assert len(ends.heard) == POSTS_PER_TURN + 1


def test_a_turn_is_over_behind_the_post_in_which_it_has_lasted_too_long(ends):
    def act(body):
        ends.now += TURN_NS - 1

    ends.act = act
    for _ in range(5):
        ends.theirs.send(POST)
    heard = []
    for _ in range(3):
        ends.turn()
        heard.append(len(ends.heard))
    assert heard == [2, 4, 5]


def test_what_comes_before_a_call_and_a_death_is_heard_however_long_that_lasts(ends):
    def act(body):
        ends.now += TURN_NS

    ends.act, ends.domain.life = act, Life.RUNNING
    for _ in range(POSTS_PER_TURN):
        ends.theirs.send(POST)
    ends.sockets.hear_first(ends.domain)
    assert len(ends.heard) == POSTS_PER_TURN


def heard_until_ready(ends):
    """What is heard of two posts the first of which says that the domain is ready."""

    def ready(body):
        ends.domain.ready = True

    ends.act = ready
    for _ in range(2):
        ends.theirs.send(POST)
    for _ in range(2):
        ends.turn()
    return ends.heard


def test_a_domain_that_is_ready_is_heard_no_more(ends):
    assert heard_until_ready(ends) == [POST]


def test_a_driver_domain_that_is_ready_is_heard_until_it_calls_at_its_endpoint(ends):
    ends.domain.config = replace(ends.domain.config, driver_domain=True)
    ends.domain.ready = True
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]
    ends.sockets.heard_by_endpoint(ends.domain.domid)
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]


def test_who_has_called_at_its_endpoint_before_it_is_ready_is_heard_until_then(ends):
    """A spare, or whoever was sent there for a large reply, says here that it is ready."""
    ends.domain.config = replace(ends.domain.config, driver_domain=True)
    ends.sockets.heard_by_endpoint(ends.domain.domid)

    assert heard_until_ready(ends) == [POST]


def told(ends):
    """Every message that has arrived."""
    found = []
    while select.select([ends.theirs], [], [], 0)[0]:
        received = receive_message(ends.theirs)
        assert received is not None
        found.append(received[0])
    return found


def test_who_has_read_all_that_its_socket_took_and_sleeps_is_rung_for_the_rest_of_its_events(ends):
    paths = [f"/a/path/{number}" for number in range(1000)]
    for path in paths:
        ends.queue.add(path, "token")
    ends.sockets.flush(DOM)
    first = told(ends)
    assert 0 < len(first) < len(paths), "more than a socket takes"
    assert ends.rung == [], "whoever has them told rings for these"
    ends.turn()
    assert ends.rung == [DOM]
    while len(first) < len(paths):
        first += told(ends)
        ends.turn()
    assert [path for _, _, path, _ in first] == paths
    rung = len(ends.rung)
    ends.turn()
    assert len(ends.rung) == rung, "there is nothing more"


def test_who_is_rung_for_the_rest_of_its_events_is_so_too_where_something_else_is_said_first(ends):
    for number in range(1000):
        ends.queue.add(f"/a/path/{number}", "token")
    ends.sockets.flush(DOM)
    assert told(ends)
    ends.sockets.tell(DOM, [DESCRIPTORS, 5])
    assert len(told(ends)) > 1, "what is said brings what waits with it"
    assert ends.rung == [DOM], "and it sleeps, having heard of the first"
    while told(ends) or ends.queue.unsent:
        ends.turn()
    rung = len(ends.rung)
    ends.sockets.tell(DOM, [DESCRIPTORS, 6])
    assert len(ends.rung) == rung, "nothing of its events waits"


def test_whose_backend_has_died_is_told_to_hurry_ahead_of_its_events_and_is_heard_for_a_while(ends, clock):
    ends.domain.ready = True
    ends.theirs.send(POST)
    ends.turn()
    assert (ends.heard, ends.waits) == ([], True)
    ends.queue.add("device/vbd/768/state", "token")
    ends.sockets.hurry(ends.domain)
    ends.sockets.flush(DOM)
    assert told(ends) == [[HURRY, clock.now + TOLD_NS], [EVENT, 1, "device/vbd/768/state", "token"]]
    ends.turn()
    assert (ends.heard, ends.waits) == ([POST], False)
    clock.now += 2 * TOLD_NS
    ends.theirs.send(POST)
    ends.turn()
    assert (ends.heard, ends.waits) == ([POST], True)


def test_one_that_hurries_is_heard_twice_as_often_as_it_is_told_and_no_oftener(ends, clock):
    ends.domain.ready = True
    ends.sockets.hurry(ends.domain)
    for _ in range(2 * HURRY_CALLS + 1):
        ends.theirs.send(POST)
        ends.turn()
    assert (len(ends.heard), ends.waits) == (2 * HURRY_CALLS, True)


def test_whose_hypercalls_are_tampered_with_is_told_nothing_and_heard_at_its_endpoint_alone(ends, clock):
    ends.domain.ready = True
    ends.disturbed.add(DOM)
    ends.sockets.hurry(ends.domain)
    assert told(ends) == []
    ends.disturbed.clear()
    ends.sockets.hurry(ends.domain)
    ends.disturbed.add(DOM)
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == []


def test_who_does_not_read_is_told_once_and_lives_whatever_dies(ends, clock):
    """One that is paused, say: its driver domain may die and come back without end."""
    ends.domain.ready = True
    for _ in range(1000):
        ends.sockets.hurry(ends.domain)
        clock.now += TOLD_NS
    assert (len(told(ends)), ends.killed) == (1, [])
    ends.sockets.heard_by_endpoint(DOM)
    ends.sockets.hurry(ends.domain)
    assert len(told(ends)) == 1


def test_who_reads_nothing_at_all_is_not_told_and_not_killed_for_it(ends, clock):
    ends.domain.ready = True
    with contextlib.suppress(BlockingIOError):
        while True:
            ends.ours.send(b"full")
    ends.sockets.hurry(ends.domain)
    assert ends.killed == []


@pytest.mark.parametrize("ends", [("destroy",), ("coredump-destroy",)], indirect=True)
def test_a_hypercall_where_nobody_hears_one_is_no_fault_whoever_reports_faults(ends):
    """It came too late: its caller asks again at its endpoint, and may have a fault yet."""
    ends.domain.ready = True
    ends.theirs.send(POST)
    ends.turn()
    ends.theirs.send(FAULT)
    ends.turn()
    reports = ends.domain.config.on_crash != "destroy"
    assert (ends.heard, [notice.signal for notice in ends.faults]) == ([], [11] if reports else [])
    assert ends.dropped == ([DOM] if reports else []), "it is work that it makes"


def test_a_new_broker_hears_whom_its_predecessor_may_have_told_to_hurry(ends, clock):
    ends.domain.ready = True
    ends.sockets.expect(ends.domain)
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]


def test_what_is_called_behind_what_is_not_quite_done_waits(ends):
    ends.settling.add(DOM)
    ends.theirs.send(POST)
    ends.turn()
    assert (ends.heard, ends.waits) == ([], True)
    ends.settling.clear()
    ends.turn()
    assert ends.heard == [POST]


def test_who_hurries_has_no_turn_more_for_what_it_calls_at_its_endpoint(ends, clock):
    ends.domain.ready = True
    ends.sockets.hurry(ends.domain)
    ends.theirs.send(POST)
    ends.sockets.hear_first(ends.domain)
    assert ends.heard == []


def test_who_has_ended_is_told_nothing_and_the_next_one_of_its_domid_is_not_heard_for_it(ends, clock):
    ends.domain.ready = True
    ends.sockets.hurry(ends.domain)
    ends.sockets.forget(DOM)
    descriptors = ends.by_key.pop(domain_key(DOM))
    ends.sockets.hurry(ends.domain)
    ends.by_key[domain_key(DOM)] = descriptors
    ends.sockets.listen(ends.domain)
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == []


@pytest.mark.parametrize("ends", [("coredump-destroy",)], indirect=True)
def test_a_fault_notice_stays_for_the_next_broker(ends):
    ends.theirs.send(POST)
    ends.theirs.send(FAULT)
    ends.turn()
    assert ends.heard == [POST]
    assert [notice.signal for notice in ends.faults] == [11]
    assert ends.waits
    ends.turn()
    assert len(ends.faults) == 1


def test_a_notice_of_a_domain_of_whom_no_core_is_wanted_is_dropped_and_what_follows_is_heard(ends):
    ends.theirs.send(FAULT)
    ends.theirs.send(POST)
    ends.turn()
    assert (ends.heard, ends.faults) == ([POST], [])


def test_a_closed_end_and_one_that_has_gone_meanwhile_are_no_trouble(ends):
    ends.act = lambda body: ends.by_key.clear()
    ends.theirs.send(POST)
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]
    ends.by_key[domain_key(DOM)] = [ends.ours.fileno()] * 2
    ends.theirs.close()
    for _ in range(3):
        ends.turn()
    assert ends.faults == []


# ---- what a domain is told -------------------------------------------------------------------------------------------


def test_what_does_not_fit_into_the_socket_waits_and_arrives_in_order_with_descriptors_before_events(ends):
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for number in range(OUTBOX_MAX // 2):
        ends.queue.add(f"data/{number}", "token")
        ends.sockets.tell(DOM, ["word", number])
    messages: list[Any] = []
    while len(messages) < OUTBOX_MAX:
        messages += told(ends)
        ends.turn()
    words = [message for message in messages if message[0] == "word"]
    events = [message for message in messages if message[0] == EVENT]
    assert words == [["word", number] for number in range(OUTBOX_MAX // 2)]
    assert [message[1] for message in events] == list(range(1, OUTBOX_MAX // 2 + 1))
    assert ends.killed == []


def test_who_reads_nothing_is_killed_when_outbox_max_messages_wait(ends):
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sent = 0
    while not ends.killed:
        ends.sockets.tell(DOM, ["word", sent])
        sent += 1
        assert sent < 10_000
    assert ends.killed == [DOM]
    assert [message[1] for message in told(ends)] == list(range(sent - 1 - OUTBOX_MAX))


def test_who_has_shut_its_socket_is_killed_once_it_is_told_something(ends):
    ends.theirs.close()
    ends.sockets.tell(DOM, ["word", 0])
    assert ends.killed == [DOM]


def test_an_event_that_the_socket_did_not_take_is_not_lost(ends):
    ends.theirs.close()
    ends.queue.add("data/x", "token")
    ends.sockets.flush(DOM)
    assert ends.killed == [DOM]
    ends.queue.send_again()
    assert ends.queue.take() == (1, "data/x", "token")


# ---- descriptors that wait -------------------------------------------------------------------------------------------


def memfd(name: str) -> int:
    return os.memfd_create(name)


def descriptors_in_use() -> int:
    """Those of the domain's pages; others of this process may go at any time."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(each.readlink()) == "/memfd:its-own (deleted)"
    return found


def fill(ends) -> None:
    """Whatever is told from here on waits."""
    with contextlib.suppress(BlockingIOError):
        while True:
            ends.ours.send(b"\x91\xa1x")


def drained(ends) -> list[Any]:
    """(sequence, what each descriptor is) of all that was sent with descriptors."""
    ends.theirs.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            message, descriptors = receive_message(ends.theirs) or ([], [])
            if message[0] == DESCRIPTORS:
                found.append((message[1], [str(Path(f"/proc/self/fd/{each}").readlink()) for each in descriptors]))
            for descriptor in descriptors:
                os.close(descriptor)
            ends.sockets.flush(DOM)
    return found


def test_a_descriptor_that_waits_is_what_it_was_whoever_has_its_number_by_then(ends):
    """Else whoever reads late, having freed what it was sent, would be handed another domain's pages."""
    ends.by_key["extent:1"] = [memfd("its-own")]
    fill(ends)
    ends.sockets.send_descriptors(DOM, 1, (("extent:1", 0),))
    (number,) = ends.by_key.pop("extent:1")
    others = memfd("anothers")
    os.dup2(others, number)
    assert drained(ends) == [(1, ["/memfd:its-own (deleted)"])]
    for each in (others, number):
        os.close(each)


def test_descriptors_that_waited_for_a_domain_that_ends_are_closed(ends):
    ends.by_key["extent:1"] = [memfd("its-own")]
    fill(ends)
    before, used = descriptors_in_use(), ends.held.used
    ends.sockets.send_descriptors(DOM, 1, (("extent:1", 0),))
    assert (descriptors_in_use(), ends.held.used) == (before + 1, used + 1)
    ends.sockets.forget(DOM)
    assert (descriptors_in_use(), ends.held.used) == (before, used)
    ends.poller.watch(ends.ours.fileno(), lambda: None)
    os.close(ends.by_key["extent:1"][0])


def test_whoever_lets_more_descriptors_wait_than_it_may_is_killed(ends):
    ends.by_key["extent:1"] = [memfd("its-own")]
    fill(ends)
    before = descriptors_in_use()
    as_many_as_may_be = (("extent:1", 0),) * DESCRIPTORS_PER_MESSAGE
    for sequence in range(OUTBOX_DESCRIPTORS_MAX // DESCRIPTORS_PER_MESSAGE):
        ends.sockets.send_descriptors(DOM, sequence, as_many_as_may_be)
    assert not ends.killed
    assert descriptors_in_use() == before + OUTBOX_DESCRIPTORS_MAX
    ends.sockets.send_descriptors(DOM, 99, as_many_as_may_be)
    assert ends.killed == [DOM]
    ends.sockets.forget(DOM)
    assert descriptors_in_use() == before
    ends.poller.watch(ends.ours.fileno(), lambda: None)
    os.close(ends.by_key["extent:1"][0])


def test_a_broker_without_descriptors_ends_who_does_not_read_and_holds_none_for_it(ends):
    ends.by_key["extent:1"] = [memfd("its-own")]
    fill(ends)
    ends.held.most, before = ends.held.used + 1, descriptors_in_use()
    ends.sockets.send_descriptors(DOM, 1, (("extent:1", 0),) * 2)
    assert ends.killed == [DOM]
    assert (descriptors_in_use(), ends.held.used) == (before, ends.held.most - 1)
    os.close(ends.by_key["extent:1"][0])


# ---- what events bring -----------------------------------------------------------------------------------------------


def test_an_event_of_a_watch_that_brings_its_directory_brings_it_as_it_is_when_it_is_sent(ends):
    ends.queue.follow("follows", "/a")
    for token in ("follows", "plain"):
        ends.queue.add("/a/state", token)
    ends.directories["/a"] = {"state": b"4"}
    ends.sockets.flush(DOM)
    assert told(ends) == [[EVENT, 1, "/a/state", "follows", {"state": b"4"}], [EVENT, 2, "/a/state", "plain"]]


def test_an_event_whose_directory_brings_nothing_is_told_alone(ends):
    ends.queue.follow("follows", "/gone")
    ends.queue.add("/gone/state", "follows")
    ends.sockets.flush(DOM)
    assert told(ends) == [[EVENT, 1, "/gone/state", "follows"]]


def test_of_many_events_that_are_sent_together_so_many_bring_their_directories(ends):
    ends.directories["/a"] = {"state": b"4"}
    for number in range(BRINGING_MAX + 2):
        ends.queue.follow(str(number), "/a")
        ends.queue.add("/a/state", str(number))
    ends.sockets.flush(DOM)
    assert [len(message) for message in told(ends)] == [5] * BRINGING_MAX + [4, 4]


def test_a_directory_that_brings_nothing_has_been_read_all_the_same_and_counts(ends):
    """One that holds too much is read to the end for each of as many watches as a guest may have."""
    read: list[str] = []
    ends.sockets._read = lambda domid, path: read.append(path)
    for number in range(BRINGING_MAX + 2):
        ends.queue.follow(str(number), "/too/much")
        ends.queue.add("/too/much/state", str(number))
    ends.sockets.flush(DOM)
    assert len(read) == BRINGING_MAX
    assert [len(message) for message in told(ends)] == [4] * (BRINGING_MAX + 2)
