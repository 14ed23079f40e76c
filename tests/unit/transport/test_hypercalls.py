"""The hypercall path over real sockets: exactly once to the caller, and nothing for who has not the key."""

import os
import select
import threading
from contextlib import contextmanager, suppress

import pytest
import zmq

from hvd.transport import hypercalls
from hvd.transport import messages as m
from hvd.transport.codec import BadMessage, pack_reply, pack_request, unpack_request
from hvd.transport.hypercalls import (
    HypercallClient,
    HypercallError,
    HypercallServer,
    HypercallTimeout,
    client_name,
    public_key,
    socket_address,
)
from hvd.transport.limits import MESSAGE_BYTES_MAX
from tests.waiting import wait_for

DEADLINE_S = 60.0
SECRET = b"s" * 32


@pytest.fixture
def context():
    with zmq.Context() as made:
        yield made
        made.destroy(linger=0)


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_PATH)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def address(directory):
    return socket_address(directory, "endpoint")


class Broker:
    """A server that answers each request with what `answer(sequence, message)` returns; None: not at all."""

    def __init__(self, context, address, answer, secret=None):
        self.server = HypercallServer(context, address, secret)
        self.seen = []
        self.raw = []
        self.clients = []
        self._answer = answer
        self._news = threading.Condition()
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            while (received := self.server.receive()) is not None:
                self._take(*received)
            if self._stop_read in select.select([self.server.fileno(), self._stop_read], [], [])[0]:
                return

    def _take(self, client, body):
        self.clients.append(client)
        with suppress(BadMessage):
            sequence, _, _, message = unpack_request(body)
            self.seen.append(sequence)
            reply = self._answer(sequence, message)
            if reply is not None:
                self.server.reply(client, reply)
        with self._news:
            self.raw.append(body)
            self._news.notify_all()

    def wait_for_requests(self, count):
        with self._news:
            assert self._news.wait_for(lambda: len(self.raw) >= count, DEADLINE_S)

    def stop(self):
        os.write(self._stop_write, b"x")
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self.server.close()
        os.close(self._stop_read)
        os.close(self._stop_write)


@contextmanager
def broker(context, address, answer, secret=None):
    one = Broker(context, address, answer, secret)
    try:
        yield one
    finally:
        one.stop()


@contextmanager
def client(context, address, key=None, **options):
    one = HypercallClient(context, address, key, name=client_name(), **{"deadline_s": DEADLINE_S, **options})
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def patient(monkeypatch):
    """Nobody asks a second time because this machine is slow."""
    monkeypatch.setattr(hypercalls, "AGAIN_LEAST_S", DEADLINE_S)


def echo(sequence, message):
    return pack_reply(sequence, 0, [sequence, message.text], 0)


def test_a_call_returns_the_value_and_counts_its_number(context, address):
    with broker(context, address, echo), client(context, address) as caller:
        assert caller.call(m.ConsoleIo("a")) == [1, "a"]
        assert caller.call(m.ConsoleIo("b")) == [2, "b"]


def test_a_refusal_carries_errno_text_and_the_calls_name(context, address):
    def refuse(sequence, message):
        return pack_reply(sequence, 16, "it is mapped", 0)

    with broker(context, address, refuse), client(context, address) as caller, pytest.raises(HypercallError) as raised:
        caller.call(m.ConsoleIo("a"))
    assert (raised.value.errno, raised.value.text) == (16, "it is mapped")
    assert str(raised.value) == "ConsoleIo: it is mapped (EBUSY)"


def test_a_reply_to_another_number_is_not_taken_for_the_answer(context, address, monkeypatch):
    monkeypatch.setattr(hypercalls, "AGAIN_LEAST_S", 0.01)
    others = iter([5, 0, 2])

    def confused(sequence, message):
        other = next(others, None)
        return pack_reply(sequence, 0, "its own", 0) if other is None else pack_reply(other, 0, "old", 0)

    with broker(context, address, confused) as one, client(context, address) as caller:
        assert caller.call(m.ConsoleIo("a")) == "its own"
        assert len(one.seen) > 3 and set(one.seen) == {1}


def test_a_call_that_is_lost_is_sent_again_under_its_number(context, address):
    lost = iter([None, None])

    def forgetful(sequence, message):
        return next(lost, echo(sequence, message))

    with broker(context, address, forgetful) as one, client(context, address) as caller:
        assert caller.call(m.ConsoleIo("a")) == [1, "a"]
        assert len(one.seen) > 2 and set(one.seen) == {1}


def test_a_call_in_flight_is_sent_again_to_the_next_broker_under_its_number(context, address):
    silent = Broker(context, address, lambda sequence, message: None)
    results = []
    with client(context, address) as caller:
        thread = threading.Thread(target=lambda: results.append(caller.call(m.ConsoleIo("a"))))
        thread.start()
        silent.wait_for_requests(1)
        silent.stop()
        with broker(context, address, echo) as successor:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
            assert results == [[1, "a"]]
            assert set(successor.seen) == {1}


class Kept:
    """Endpoints of brokers that follow each other at one path, and the number of the one that serves.

    A dead one's connections are still open: it hears, and answers nobody.
    """

    def __init__(self, context, address):
        self._context, self._address = context, address
        self.serves = 0
        self.brokers = []

    def next(self, answer):
        self.brokers.append(Broker(self._context, self._address, answer))
        self.serves += 1
        return self.brokers[-1]

    def stop(self):
        for one in self.brokers:
            one.stop()


@pytest.fixture
def kept(context, address):
    made = Kept(context, address)
    yield made
    made.stop()


def silent(sequence, message):
    """What a dead broker answers."""


def test_whoever_is_not_told_that_a_broker_died_asks_the_next_one_with_its_next_call(context, address, kept, patient):
    kept.next(echo)
    with client(context, address, broker=lambda: kept.serves) as caller:
        assert caller.call(m.ConsoleIo("a")) == [1, "a"]
        kept.next(echo)
        kept.next(echo)
        assert caller.call(m.ConsoleIo("b")) == [2, "b"]
        assert caller.call(m.ConsoleIo("c")) == [3, "c"]
        assert [one.seen for one in kept.brokers] == [[1], [], [2, 3]]


def test_whoever_was_connected_to_a_broker_that_is_dead_is_not_and_connects_without_a_call(context, address, kept):
    kept.next(echo)
    with client(context, address, broker=lambda: kept.serves) as caller:
        wait_for(lambda: caller.is_connected, "the first connection")
        kept.serves += 1
        assert not caller.is_connected
        wait_for(lambda: caller.is_connected, "the next")
        assert kept.brokers[0].seen == []


@pytest.mark.parametrize("half", ["_connect", "_broker"])
def test_a_signal_in_the_middle_of_connecting_anew_leaves_it_to_the_next_call(
    context, address, kept, monkeypatch, half
):
    kept.next(echo)
    with client(context, address, broker=lambda: kept.serves) as caller:
        caller.call(m.ConsoleIo("a"))
        kept.next(echo)
        real, left = getattr(caller, half), [0 if half == "_connect" else 1]

        def interrupted():
            left[0] -= 1
            if left[0] < 0:
                monkeypatch.setattr(caller, half, real)
                raise InterruptedError
            return real()

        monkeypatch.setattr(caller, half, interrupted)
        with pytest.raises(InterruptedError):
            caller.call(m.ConsoleIo("a"))
        caller.call(m.ConsoleIo("a"))


def test_who_connects_anew_does_so_by_another_name(context, address, patient):
    """Of two connections by one name the broker closes one without a word, which nobody hears of where it is kept."""
    serves = [1]
    with broker(context, address, echo) as one, client(context, address, broker=lambda: serves[0]) as caller:
        for serves[0] in (1, 2, 3):
            caller.call(m.ConsoleIo("a"))
    assert len(set(one.clients)) == len(one.clients) == 3


def test_whoever_waits_for_a_dead_broker_and_misses_its_end_asks_the_next_one_after_a_while(context, address, kept):
    """As it would be if the new broker had not seen that it asks."""
    first = kept.next(silent)
    results = []
    with client(context, address, broker=lambda: kept.serves) as caller:
        thread = threading.Thread(target=lambda: results.append(caller.call(m.ConsoleIo("a"))))
        thread.start()
        first.wait_for_requests(1)
        second = kept.next(echo)
        thread.join(DEADLINE_S)
        assert (results, set(first.seen), set(second.seen)) == ([[1, "a"]], {1}, {1})


def test_the_end_of_a_connection_to_a_dead_broker_has_the_call_in_flight_sent_to_the_next(
    context, address, kept, monkeypatch
):
    """Twice where libzmq has connected again before we did: under one number, which is carried out once."""
    monkeypatch.setattr(hypercalls, "AGAIN_LEAST_S", DEADLINE_S)
    first = kept.next(silent)
    results = []
    with client(context, address, broker=lambda: kept.serves) as caller:
        thread = threading.Thread(target=lambda: results.append(caller.call(m.ConsoleIo("a"))))
        thread.start()
        first.wait_for_requests(1)
        second = kept.next(echo)
        kept.brokers.remove(first)
        first.stop()
        thread.join(DEADLINE_S)
        assert (results, set(second.seen)) == ([[1, "a"]], {1})


def test_a_call_waits_for_a_broker_that_is_not_there_yet(context, address):
    results = []
    with client(context, address) as caller:
        thread = threading.Thread(target=lambda: results.append(caller.call(m.ConsoleIo("a"))))
        thread.start()
        with broker(context, address, echo):
            thread.join(DEADLINE_S)
    assert results == [[1, "a"]]


def test_a_deep_directory_is_no_obstacle(context, tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    directory = os.open(deep, os.O_PATH)
    address = socket_address(directory, "endpoint")
    with broker(context, address, echo), client(context, address) as caller:
        assert caller.call(m.ConsoleIo("a")) == [1, "a"]
    os.close(directory)


def test_the_end_of_the_machine_ends_a_call(context, address):
    read, write = os.pipe()
    with client(context, address, end=read) as caller:
        os.close(write)
        with pytest.raises(HypercallTimeout, match="the machine has stopped"):
            caller.call(m.ConsoleIo("a"))
    os.close(read)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_who_knows_the_public_key_is_heard(context, address):
    with broker(context, address, echo, SECRET), client(context, address, public_key(SECRET)) as caller:
        assert caller.call(m.ConsoleIo("a")) == [1, "a"]


@pytest.mark.parametrize("key", [None, public_key(b"another" + b"s" * 25)], ids=["no key", "a dead domain's key"])
def test_who_does_not_know_it_is_not_heard_and_disturbs_nobody(context, address, key):
    with broker(context, address, echo, SECRET) as one, client(context, address, public_key(SECRET)) as friend:
        unheard = pytest.raises(HypercallTimeout, match=r"ConsoleIo: the broker has not answered within 0\.5 s")
        with client(context, address, key, deadline_s=0.5) as stranger, unheard:
            stranger.call(m.ConsoleIo("a"))
        assert one.raw == []
        assert friend.call(m.ConsoleIo("b")) == [1, "b"]


# ---- what is no request ----------------------------------------------------------------------------------------------


def raw(context, address):
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(address)
    return socket


@pytest.mark.parametrize("parts", [[b"a", b"b"], [b""] * 50, [b"x" * 1000] * 300])
def test_a_message_in_several_parts_is_an_empty_request_and_one_only(context, address, parts, patient):
    with broker(context, address, echo) as one, client(context, address) as friend:
        hostile = raw(context, address)
        hostile.send_multipart(parts)
        hostile.send(b"the next")
        assert friend.call(m.ConsoleIo("b")) == [1, "b"]
        one.wait_for_requests(3)
        hostile.close(0)
    assert sorted(one.raw)[:2] == [b"", b"the next"]


def test_what_is_far_too_large_ends_its_connection_and_no_other(context, address, patient):
    with broker(context, address, echo) as one, client(context, address) as friend:
        hostile = raw(context, address)
        hostile.send(b"x" * (MESSAGE_BYTES_MAX * 4 + 1))
        assert not hostile.poll(200)
        assert friend.call(m.ConsoleIo("b")) == [1, "b"]
        hostile.close(0)
    assert len(one.raw) == 1


def test_of_replies_that_are_not_read_a_few_are_kept_and_the_rest_dropped(context, address):
    """One kept all that its sockets took: 64 for each connection of a hostile domain's."""
    replies = 40
    with broker(context, address, lambda number, message: b"x" * 200_000) as one:
        deaf = context.socket(zmq.DEALER)
        deaf.linger, deaf.rcvhwm, deaf.sndhwm = 0, 1, 0
        deaf.connect(address)
        for number in range(1, replies + 1):
            deaf.send(pack_request(m.ConsoleIo("a"), number, 0, 0))
        one.wait_for_requests(replies)
        read = 0
        while deaf.poll(200 if read else DEADLINE_S * 1000):
            deaf.recv()
            read += 1
        deaf.close(0)
    assert 0 < read < replies // 2


def test_a_reply_to_a_client_that_has_gone_is_dropped(context, address):
    with broker(context, address, echo) as one:
        one.server.reply(b"nobody", b"x")
        with client(context, address) as caller:
            assert caller.call(m.ConsoleIo("a")) == [1, "a"]


# ---- the host says no ------------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_there_is_the_hosts_refusal(context, directory):
    with pytest.raises(OSError, match=r"cannot bind .*/missing/endpoint"):
        HypercallServer(context, socket_address(directory, "missing/endpoint"), None)


def test_a_context_without_sockets_is_the_hosts_refusal(address):
    with zmq.Context() as small:
        small.max_sockets = 1
        server = HypercallServer(small, address, None)
        with pytest.raises(OSError, match="no socket for"):
            HypercallServer(small, address + "2", None)
        server.close()


def test_no_two_clients_have_one_name():
    names = {client_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(len(name) < 30 for name in names)
