"""A domain's end of the upcall socket: descriptors find their hypercall, events come once and in order."""

import os
import resource
import threading
from pathlib import Path

import pytest

from hvd.transport.call_words import CallWords
from hvd.transport.channels import create_channel
from hvd.transport.descriptors import send_message, socket_pair
from hvd.transport.upcalls import UpcallReceiver, UpcallsBroken, UpcallTimeout

DEADLINE_S = 30.0
DESCRIPTORS = Path("/proc/self/fd")


class Ends:
    """The broker's socket and the domain's receiver."""

    def __init__(self):
        self.broker, self.domain = socket_pair()
        self.receiver = UpcallReceiver(self.domain)
        self.pipe = os.pipe()

    def birth(self, count=2, **certificate):
        send_message(self.broker, ["birth", certificate], self.pipe[:1] * count)

    def run(self):
        send_message(self.broker, ["run", [], []])

    def descriptors(self, sequence, count=3):
        send_message(self.broker, ["descriptors", sequence], self.pipe[:1] * count)

    def event(self, number, path):
        send_message(self.broker, ["event", number, path, "token"])

    def events(self):
        self.receiver.read_all()
        paths = []
        while (event := self.receiver.next_event()) is not None:
            paths.append(event[0])
        return paths

    def close(self):
        self.broker.close()
        self.domain.close()
        for descriptor in self.pipe:
            os.close(descriptor)


@pytest.fixture
def ends():
    made = Ends()
    before = set(DESCRIPTORS.iterdir())
    yield made
    assert set(DESCRIPTORS.iterdir()) <= before
    made.close()


def close(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def test_the_descriptors_of_a_hypercall_are_those_sent_for_it(ends):
    ends.descriptors(1, 2)
    ends.descriptors(2, 3)
    first = ends.receiver.take_descriptors(1, 2, DEADLINE_S)
    second = ends.receiver.take_descriptors(2, 3, DEADLINE_S)
    assert (len(first), len(second)) == (2, 3)
    close(first + second)


def test_descriptors_are_waited_for(ends):
    sender = threading.Timer(0.05, ends.descriptors, [1])
    sender.start()
    close(ends.receiver.take_descriptors(1, 3, DEADLINE_S))
    sender.join()


def test_descriptors_that_do_not_come_are_told_with_the_hypercall(ends):
    with pytest.raises(UpcallTimeout, match=r"hypercall 7 promised 3 descriptors; none came within 0 s"):
        ends.receiver.take_descriptors(7, 3, 0)


def test_descriptors_that_cannot_come_any_more_are_not_waited_for(ends):
    ends.broker.close()
    with pytest.raises(EOFError, match="the machine has stopped"):
        ends.receiver.take_descriptors(1, 3, DEADLINE_S)


def test_another_number_of_descriptors_than_promised_is_a_fault_and_closes_them(ends):
    ends.descriptors(1, 2)
    with pytest.raises(UpcallsBroken, match="promised 3 descriptors, 2 came"):
        ends.receiver.take_descriptors(1, 3, DEADLINE_S)


def test_descriptors_that_a_new_broker_sends_again_are_closed_before_and_after_they_are_taken(ends):
    ends.descriptors(1)
    ends.descriptors(1)
    close(ends.receiver.take_descriptors(1, 3, DEADLINE_S))
    ends.descriptors(1)
    ends.receiver.read_all()


def test_descriptors_that_nobody_took_are_closed_when_the_next_are_asked_for(ends):
    ends.descriptors(1)
    ends.receiver.read_all()
    ends.descriptors(3)
    close(ends.receiver.take_descriptors(3, 3, DEADLINE_S))


def test_descriptors_that_come_late_are_closed(ends):
    with pytest.raises(UpcallTimeout):
        ends.receiver.take_descriptors(1, 3, 0)
    ends.descriptors(1)
    ends.receiver.read_all()
    ends.descriptors(2)
    close(ends.receiver.take_descriptors(2, 3, DEADLINE_S))


def test_repeated_descriptors_count_once_so_that_both_sides_count_alike(ends):
    for sequence in (1, 1, 4, 1, 4):
        ends.descriptors(sequence)
        ends.receiver.read_all()
    assert ends.receiver.descriptors_received == 6
    ends.descriptors(5, 2)
    close(ends.receiver.take_descriptors(5, 2, DEADLINE_S))
    assert ends.receiver.descriptors_received == 8


def test_events_come_in_order_and_each_once(ends):
    for number, path in ((1, "a"), (3, "b"), (2, "late"), (3, "again"), (4, "c")):
        ends.event(number, path)
    assert ends.events() == ["a", "b", "c"]
    assert ends.receiver.events_seen == 4
    assert ends.events() == []


def test_the_last_event_that_was_taken_up_is_said_where_the_next_broker_finds_it(ends):
    channel = create_channel()
    words = ends.receiver.words = CallWords(channel.page_fd)
    channel.close()
    for number, path in ((1, "a"), (3, "c"), (2, "b")):
        ends.event(number, path)
    ends.receiver.read_all()
    assert words.untrusted_seen == 0, "read while it waited for an answer, and the broker dies before it rings for them"
    assert ends.receiver.next_event().path == "a"
    assert words.untrusted_seen == 1
    assert ends.events() == ["c"]
    assert words.untrusted_seen == 3
    words.close()


def test_events_and_descriptors_do_not_wait_for_each_other(ends):
    ends.event(1, "a")
    ends.descriptors(1)
    ends.event(2, "b")
    close(ends.receiver.take_descriptors(1, 3, DEADLINE_S))
    assert ends.events() == ["a", "b"]


def test_a_domain_is_born_once(ends):
    ends.birth(name="ivi")
    ends.event(1, "a")
    certificate, descriptors = ends.receiver.wait_birth()
    assert (certificate, len(descriptors)) == ({"name": "ivi"}, 2)
    ends.birth(name="another")
    assert ends.receiver.wait_birth() == (certificate, descriptors)
    assert ends.events() == ["a"]
    close(descriptors)


def test_what_comes_before_the_birth_is_kept(ends):
    ends.event(1, "a")
    ends.birth(1)
    close(ends.receiver.wait_birth()[1])
    assert ends.events() == ["a"]


def test_a_domain_that_is_born_waits_to_be_told_to_run(ends):
    ends.birth(1)
    close(ends.receiver.wait_birth()[1])
    ends.event(1, "a")
    done = threading.Event()

    def wait():
        ends.receiver.wait_run()
        done.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not done.is_set()
    ends.run()
    waiting.join(DEADLINE_S)
    assert done.is_set()
    assert ends.events() == ["a"]
    ends.receiver.wait_run()  # a new broker may say it again


def test_what_is_told_to_run_before_its_birth_runs_when_it_is_born(ends):
    ends.run()
    ends.birth(1)
    close(ends.receiver.wait_birth()[1])
    ends.receiver.wait_run()


def test_a_domain_that_is_never_told_to_run_ends(ends):
    ends.birth(1)
    close(ends.receiver.wait_birth()[1])
    ends.broker.close()
    with pytest.raises(EOFError, match="before the domain ran"):
        ends.receiver.wait_run()


def test_a_domain_that_is_never_born_ends(ends):
    ends.broker.close()
    with pytest.raises(EOFError, match="before the domain's birth"):
        ends.receiver.wait_birth()


@pytest.mark.parametrize("message", [["unknown"], ["event", "1", "/a", "t"], ["event", 1], ["descriptors"], [7]])
def test_a_message_that_is_none_of_ours_is_dropped_and_its_descriptors_closed(ends, message):
    send_message(ends.broker, message, ends.pipe)
    assert ends.events() == []


def test_a_message_whose_descriptors_find_no_room_ends_the_domain_and_blames_no_peer(ends):
    ends.descriptors(1, 2)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, before[1]))  # the lowest free number is beyond it
    try:
        with pytest.raises(UpcallsBroken, match="cut short"):
            ends.receiver.take_descriptors(1, 2, DEADLINE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- what was asked ahead --------------------------------------------------------------------------------------------


def ahead(ends, *entries, run=False):
    count = sum(entry[2] for entry in entries)
    message = ["run", [["vbd", "1", "768"]], list(entries)] if run else ["ahead", list(entries)]
    send_message(ends.broker, message, ends.pipe[:1] * count)


def test_what_was_answered_ahead_is_there_when_it_runs_each_with_its_descriptors(ends):
    ahead(ends, [b"map", {"handle": 1}, 1], [b"watch", None, 0])
    ahead(ends, [b"medium", None, 2], run=True)
    ends.receiver.wait_run()
    assert ends.receiver.served == [("vbd", "1", "768")]
    found = ends.receiver.take_ahead()
    assert {call: (value, len(descriptors)) for call, (value, descriptors) in found.items()} == {
        b"map": ({"handle": 1}, 1), b"watch": (None, 0), b"medium": (None, 2),
    }  # fmt: skip
    for _, descriptors in found.values():
        close(descriptors)
    assert ends.receiver.take_ahead() == {}


def test_what_a_new_broker_answers_again_counts_once_and_its_descriptors_are_closed(ends):
    ahead(ends, [b"map", 1, 1])
    ahead(ends, [b"map", 2, 1], [b"bind", 3, 3])
    ahead(ends, run=True)
    ends.receiver.wait_run()
    found = ends.receiver.take_ahead()
    ahead(ends, [b"map", 4, 1])
    ahead(ends, [b"map", 5, 1], run=True)
    ends.receiver.read_all()
    assert ends.receiver.take_ahead() == {}
    assert {call: value for call, (value, _) in found.items()} == {b"map": 1, b"bind": 3}
    for _, descriptors in found.values():
        close(descriptors)


def test_an_event_brings_the_keys_that_it_was_sent_with(ends):
    send_message(ends.broker, ["event", 1, "a/state", "token", {"state": b"4"}])
    send_message(ends.broker, ["event", 2, "a/state", "token"])
    ends.receiver.read_all()
    assert ends.receiver.next_event() == ("a/state", "token", {"state": b"4"})
    assert ends.receiver.next_event() == ("a/state", "token", None)


def test_a_successor_of_the_broker_sees_whose_descriptors_have_come_though_nobody_waits_for_them(ends):
    channel = create_channel()
    words = ends.receiver.words = CallWords(channel.page_fd)
    with pytest.raises(UpcallTimeout):
        ends.receiver.take_descriptors(4, 3, 0.0)
    assert words.untrusted_received == 0
    ends.descriptors(4)
    ends.receiver.read_all()
    assert (words.untrusted_received, ends.receiver.descriptors_received) == (4, 3)
    ends.descriptors(3)  # late, and closed
    ends.receiver.read_all()
    assert (words.untrusted_received, ends.receiver.descriptors_received) == (4, 3)
    ends.receiver._forget_before(5)
    words.close()
    channel.close()
