"""A domain's hypercalls: over the upcall socket until it is ready, over its endpoint then, each carried out once."""

import os
import time
from types import SimpleNamespace

import msgpack
import pytest

from hvd.domains import hypercalls
from hvd.domains.hypercalls import Hypercalls
from hvd.transport import messages as m
from hvd.transport.call_words import CallWords
from hvd.transport.channels import create_channel
from hvd.transport.codec import pack_reply, unpack_request
from hvd.transport.descriptors import BYTES_PER_MESSAGE, send_message, socket_pair
from hvd.transport.hypercalls import HypercallError, HypercallTimeout
from hvd.transport.upcalls import HURRY_CALLS, REPLY, REPLY_BYTES_MAX, TOO_LARGE, UpcallReceiver


class Endpoint:
    """What is made on connecting: it knows what it was asked."""

    is_connected = True

    def __init__(self, requests):
        self.requests, self.asked, self.on_ask = requests, [], lambda: None

    def call(self, message):
        return self.ask(self.requests.pack(message), "")

    def ask(self, packed, name):
        self.asked.append(unpack_request(packed)[0])
        self.on_ask()
        return "over the endpoint"


class Room:
    """What is kept until a connection is made: it notes what becomes of it."""

    def __init__(self, said):
        self._said = said
        said.append("kept")

    def give_up(self):
        self._said.append("given up")


class Ends:
    """A domain's calls, and the broker's end of its upcall socket. A reply may be there before it is asked for."""

    def __init__(self, monkeypatch):
        self.said: list[str] = []
        """What it has done in its own process, which here is everybody's."""
        monkeypatch.setattr(hypercalls, "ConnectionRoom", lambda: Room(self.said))
        monkeypatch.setattr(hypercalls, "start_sleeper", lambda: self.said.append("sleeper"))
        self.broker, self.domain = socket_pair()
        self.endpoints = []
        channel = create_channel()
        self.words = CallWords(channel.page_fd)
        channel.close()
        self.calls = Hypercalls(UpcallReceiver(self.domain), self._connect, self.words)

    def _connect(self, requests):
        self.said.append("connected")
        self.endpoints.append(Endpoint(requests))
        return self.endpoints[-1]

    def reply(self, sequence, errno=0, value=None, count=0):
        send_message(self.broker, [REPLY, pack_reply(sequence, errno, value, count)])

    def heard(self):
        """(sequence, message) of all that has come over the upcall socket."""
        found: list[tuple[int, m.XenVersion]] = []
        while True:
            try:
                sequence, _, _, message = unpack_request(self.broker.recv(65_536))
            except BlockingIOError:
                return found
            found.append((sequence, message))

    def close(self):
        self.broker.close()
        self.domain.close()
        self.words.close()


@pytest.fixture
def ends(monkeypatch):
    made = Ends(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch):
    """A moment is as long as a test says."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.s)
    return now


def test_a_domain_that_comes_to_life_calls_over_its_upcall_socket_and_makes_no_connection(ends):
    ends.reply(1, value="4.17")
    assert ends.calls.call(m.XenVersion()) == "4.17"
    assert (ends.heard(), ends.endpoints) == ([(1, m.XenVersion())], [])


def test_a_refusal_names_the_call(ends):
    ends.reply(1, errno=13, value="not yours")
    with pytest.raises(HypercallError, match="XenVersion: not yours \\(EACCES\\)"):
        ends.calls.call(m.XenVersion())


def test_descriptors_come_with_the_value(ends):
    read, write = os.pipe()
    send_message(ends.broker, ["descriptors", 1], (read,))
    ends.reply(1, value="port", count=1)
    value, (descriptor,) = ends.calls.call(m.XenVersion())
    os.write(write, b"x")
    assert (value, os.read(descriptor, 1)) == ("port", b"x")
    for each in (read, write, descriptor):
        os.close(each)


def test_replies_to_older_calls_are_passed_over(ends):
    ends.reply(1, value="first")
    ends.reply(1, value="first, again")
    ends.reply(2, value="second")
    assert [ends.calls.call(m.XenVersion()), ends.calls.call(m.XenVersion())] == ["first", "second"]


def test_a_reply_that_is_too_large_is_fetched_over_the_endpoint_under_the_same_number(ends):
    send_message(ends.broker, [TOO_LARGE, 1])
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    assert ends.endpoints[0].asked == [1]
    ends.reply(2, value="small")
    assert ends.calls.call(m.XenVersion()) == "small"


def test_from_when_it_is_ready_it_calls_over_its_endpoint_and_counts_on(ends):
    ends.reply(1)
    ends.calls.call(m.XenVersion())
    ends.calls.ready()
    assert [sequence for sequence, _ in ends.heard()] == [1, 2]
    assert [ends.calls.call(m.XenVersion()), ends.calls.call(m.XenVersion())] == ["over the endpoint"] * 2
    (endpoint,) = ends.endpoints
    assert (endpoint.asked, ends.heard()) == ([3, 4], [])


def test_who_has_asked_for_something_connects_when_it_is_ready_and_keeps_no_room(ends):
    ends.reply(1)
    ends.calls.call(m.XenVersion())
    ends.calls.ready()
    assert ends.said == ["sleeper", "connected"]


def test_who_has_asked_for_nothing_keeps_room_for_a_connection_and_makes_it_with_its_first_question(ends):
    """By then it may have used up its threads or descriptors, and libzmq aborts."""
    ends.calls.post(m.XenVersion())
    ends.calls.ready()
    assert ends.said == ["sleeper", "kept"]
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    ends.calls.call(m.XenVersion())
    assert ends.said == ["sleeper", "kept", "given up", "connected"]
    assert [sequence for sequence, _ in ends.heard()] == [1, 2]
    assert ends.endpoints[0].asked == [3, 4]


def test_who_serves_devices_goes_on_over_its_socket_for_a_moment_and_keeps_room_meanwhile(ends, clock):
    ends.reply(1)
    ends.calls.call(m.XenVersion())
    ends.calls.linger()
    ends.calls.ready()
    ends.reply(3, value="over the socket")
    assert ends.calls.call(m.XenVersion()) == "over the socket"
    assert ends.said == ["sleeper", "kept"]
    clock.s += hypercalls.LINGER_S
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    assert ends.said == ["sleeper", "kept", "given up", "connected"]
    assert ends.endpoints[0].asked == [4]


def test_whoever_rests_connects_and_calls_over_the_socket_until_that_is_done(ends, clock):
    ends.calls.linger()
    ends.calls.ready()
    ends.calls.rest()
    assert ends.said == ["sleeper", "kept", "given up", "connected"]
    (endpoint,) = ends.endpoints
    endpoint.is_connected = False
    ends.reply(2, value="over the socket")
    assert ends.calls.call(m.XenVersion()) == "over the socket"
    endpoint.is_connected = True
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    endpoint.is_connected = False
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    assert endpoint.asked == [3, 4]


def test_whoever_lingers_and_is_not_heard_asks_at_its_endpoint_under_the_same_number(ends, monkeypatch, clock):
    """No driver domain, or one whose broker has seen it there already."""
    monkeypatch.setattr(hypercalls, "AGAIN_S", 0.0)
    ends.calls.linger()
    ends.calls.ready()
    assert [ends.calls.call(m.XenVersion()), ends.calls.call(m.XenVersion())] == ["over the endpoint"] * 2
    assert ends.endpoints[0].asked == [2, 3]
    assert [sequence for sequence, _ in ends.heard()] == [1, 2]


def test_whoever_rests_before_it_is_ready_connects_then(ends):
    ends.reply(1)
    ends.calls.call(m.XenVersion())
    ends.calls.linger()
    ends.calls.rest()
    ends.calls.ready()
    assert ends.said == ["sleeper", "connected"]


def test_a_spare_that_serves_devices_has_its_connection_by_then_and_takes_to_it_when_it_rests(ends, clock):
    assert ends.calls.connection is ends.calls.connection
    ends.calls.linger()
    ends.calls.ready()
    ends.reply(2, value="over the socket")
    assert ends.calls.call(m.XenVersion()) == "over the socket"
    ends.calls.rest()
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"


@pytest.fixture
def hurrying(ends, clock):
    """One that is ready, calls at its endpoint, and is told to hurry until a second from now; and its clock."""
    ends.calls.ready()
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    ends.calls.hurry(int((clock.s + 1) * 1e9))
    return clock


def test_who_is_told_to_hurry_calls_over_its_socket_again_for_a_moment(ends, hurrying):
    ends.reply(3, value="over the socket")
    assert ends.calls.call(m.XenVersion()) == "over the socket"
    hurrying.s += hypercalls.LINGER_S
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    assert ends.endpoints[0].asked == [2, 4]


def test_who_has_read_too_late_that_it_is_to_hurry_does_not(ends, hurrying):
    """It was paused, or computed: nobody would hear it."""
    ends.calls.hurry(int((hurrying.s - 10) * 1e9))
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"


def test_who_hurries_does_so_for_a_number_of_calls(ends, hurrying):
    for number in range(HURRY_CALLS):
        ends.reply(3 + number, value="over the socket")
        assert ends.calls.call(m.XenVersion()) == "over the socket"
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"


def test_whoever_has_called_at_its_endpoint_does_not_linger_for_devices(ends):
    """It serves them late: it is not heard over its socket any more."""
    ends.calls.ready()
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    ends.calls.linger()
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"


def test_a_hurry_that_is_over_before_it_is_ready_keeps_nobody_from_connecting(ends):
    ends.reply(1)
    ends.calls.call(m.XenVersion())
    ends.calls.hurry(1)
    ends.calls.ready()
    assert ends.said == ["sleeper", "connected"]


def test_whoever_had_to_fetch_a_reply_is_not_heard_over_its_socket_any_more_and_does_not_try(ends):
    ends.calls.linger()
    send_message(ends.broker, [TOO_LARGE, 1])
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"
    ends.calls.ready()
    assert ends.calls.call(m.XenVersion()) == "over the endpoint"


def test_who_connected_before_it_was_ready_as_a_spare_does_keeps_no_room(ends):
    assert ends.calls.connection is ends.calls.connection
    ends.calls.ready()
    assert ends.said == ["connected", "sleeper"]


def test_a_call_that_nobody_answers_is_made_again_under_the_same_number_until_its_deadline(ends, monkeypatch, clock):
    post = ends.calls._upcalls.post

    def post_slowly(packed):
        post(packed)
        clock.s += 0.02

    monkeypatch.setattr(hypercalls, "AGAIN_S", 0.0)
    monkeypatch.setattr(ends.calls._upcalls, "post", post_slowly)
    ends.calls.requests.deadline_s = 0.05
    with pytest.raises(HypercallTimeout, match=r"XenVersion: the broker has not answered within 0\.05 s"):
        ends.calls.call(m.XenVersion())
    assert [sequence for sequence, _ in ends.heard()] == [1, 1, 1]


def test_a_socket_that_is_full_of_what_no_broker_has_heard_is_no_failure(ends, monkeypatch):
    monkeypatch.setattr(hypercalls, "AGAIN_S", 0.0)
    ends.calls.requests.deadline_s = 0.05
    while True:
        try:
            ends.domain.send(bytes(1000))
        except BlockingIOError:
            break
    with pytest.raises(HypercallTimeout):
        ends.calls.call(m.XenVersion())


def test_the_largest_reply_fits_into_a_message_of_the_upcall_socket():
    assert len(msgpack.packb([REPLY, bytes(REPLY_BYTES_MAX)])) <= BYTES_PER_MESSAGE


def test_a_multicall_whose_answer_is_known_is_not_made_and_anything_else_is(ends):
    known = SimpleNamespace(ask=lambda message, call: [[0, b"known", 0]])
    ends.calls.ahead = known
    assert ends.calls.call(m.Multicall([b"entry"])) == [[0, b"known", 0]]
    ends.reply(1, value="asked")
    assert ends.calls.call(m.XenVersion()) == "asked"


def test_a_spare_has_its_sleeper_before_it_is_ready_and_no_other(ends, monkeypatch):
    made = []
    monkeypatch.setattr(hypercalls, "start_sleeper", lambda: made.append(True))
    ends.calls.have_sleeper()
    ends.calls.ready()
    assert made == [True]


def test_a_domain_says_that_it_asks_until_it_has_been_answered_whichever_way(ends, monkeypatch):
    said, wait_reply = [], ends.calls._upcalls.wait_reply

    def look_and_wait(*call):
        said.append(ends.words.untrusted_asks)
        return wait_reply(*call)

    monkeypatch.setattr(ends.calls._upcalls, "wait_reply", look_and_wait)
    ends.reply(1)
    ends.calls.call(m.XenVersion())
    said.append(ends.words.untrusted_asks)
    ends.calls.ready()
    ends.calls.connection.on_ask = lambda: said.append(ends.words.untrusted_asks)
    ends.calls.call(m.XenVersion())
    said.append(ends.words.untrusted_asks)
    assert said == [True, False, True, False]


def test_a_domain_that_was_refused_or_heard_nothing_asks_no_more(ends):
    ends.reply(1, errno=13, value="not yours")
    with pytest.raises(HypercallError):
        ends.calls.call(m.XenVersion())
    assert not ends.words.untrusted_asks
    ends.calls.requests.deadline_s = 0.0
    with pytest.raises(HypercallTimeout):
        ends.calls.call(m.XenVersion())
    assert not ends.words.untrusted_asks
