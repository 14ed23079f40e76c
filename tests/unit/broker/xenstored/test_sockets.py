"""XenStore's sockets with real clients: what is asked is answered in turns, and nobody takes more than there is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.broker.held import HeldDescriptors, spare_store_key, store_key
from hvd.broker.poller import Poller
from hvd.broker.store import WatchEvent
from hvd.broker.xenstored import sockets
from hvd.broker.xenstored.connection import KEPT_IN_BYTES, Connection
from hvd.broker.xenstored.doors import LATER, MESSAGES_PER_TURN, TURN_NS, StoreDoors
from hvd.broker.xenstored.sockets import HOST, StoreSockets
from hvd.transport import xs_wire
from hvd.transport.descriptors import socket_pair
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import (
    STORE_BACKLOG_BYTES_MAX,
    STORE_CONNECTIONS_MAX,
    STORE_GUEST_BACKLOG_BYTES_MAX,
    STORE_HOST_CONNECTIONS_MAX,
)
from hvd.transport.xs_wire import Message, Type

ONE = DomId(1)
READ = xs_wire.pack(Type.READ, 1, 0, b"/\0")


class Door:
    """The sockets of one broker, whose store answers every request with what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link, self._machine = socket_pair()
        self.held = HeldDescriptors(self.link, {})
        self.poller = Poller()
        self.living: dict[int, DomId] = {}
        self.logged: list[tuple[str, DomId]] = []
        self.busy: set[DomId] = set()
        self.worked: list[DomId] = []
        self.not_yet = 0
        """How often a request is to be asked once more."""
        self.asked: list[tuple[Connection, Message]] = []
        self.now_ns = self.takes_ns = 0
        self.recorded = 0
        """Of those that were asked."""
        self.doors = StoreDoors(
            lambda domid: domid in self.busy, self.log, lambda: self.now_ns, on_work=self.worked.append
        )
        self.doors.serve_by(self)
        self.sockets = StoreSockets(self.held, self.poller, self.doors, lambda: self.living, self.log)

    def serve(self, connection: Connection, message: Message) -> tuple[int, bytes] | None:
        self.asked.append((connection, message))
        self.now_ns += self.takes_ns
        if message.type == Type.CONTROL and self.not_yet:
            self.not_yet -= 1
            return LATER
        connection.left_traces = message.type == Type.WATCH
        if message.type == Type.WATCH:
            self.fire(connection, b"first")
        return None if message.type == Type.RELEASE else (message.type, message.payload)

    def answer_plain(self, untrusted: bytes, at: int) -> tuple[bytes, int]:
        return b"", at

    def record(self) -> bool:
        self.recorded = len(self.asked)
        return False

    def fire(self, connection: Connection, token: bytes) -> None:
        self.doors.add_event(WatchEvent(connection.domid, "/w", token.decode(), connection.number))

    def log(self, text: str, domid: DomId) -> None:
        self.logged.append((text, domid))

    def listen(self, owner: DomId | None) -> Path:
        directory = self.directory / str(owner)
        directory.mkdir(exist_ok=True)
        self.sockets.listen(owner, str(directory))
        return directory / "socket"

    def connect(self, path: Path) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(path))
        self.turn()
        return client

    def turn(self) -> None:
        """One round of the broker's loop."""
        self.poller.poll(0)
        self.doors.serve_ready()
        self.doors.flush()

    def close(self) -> None:
        self.turn()  # the clients have gone
        for descriptors in self.held.by_key.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self.link.close()
        self._machine.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.close()


def test_a_client_is_answered_and_its_connection_is_its_sockets(door: Door) -> None:
    with door.connect(door.listen(ONE)) as guest, door.connect(door.listen(HOST)) as host:
        for client in (guest, host):
            client.sendall(READ)
            door.turn()
            assert client.recv(100) == READ
    (first, _), (second, _) = door.asked
    assert (first.domid, second.domid) == (ONE, DOM0)
    assert first.number > 1 and second.number < 0


def test_a_turn_is_recorded_before_any_of_it_is_answered(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []
    send = sockets.SocketLine.send

    def sending(line: sockets.SocketLine, data: bytes) -> int:
        recorded.append(door.recorded)
        return send(line, data)

    monkeypatch.setattr(sockets.SocketLine, "send", sending)
    with door.connect(door.listen(ONE)) as client:
        client.sendall(READ * 3)
        door.turn()
        assert client.recv(100) == READ * 3 and recorded == [3]


def test_what_a_domain_has_us_do_is_counted_for_it_whatever_comes_of_it(door: Door) -> None:
    """The broker works on the CPUs of those whom it works for: no way of waking it is nobody's."""
    with door.connect(door.listen(ONE)) as client:
        assert door.worked == [ONE], "it has connected"
        client.sendall(READ[:7])
        door.turn()
        assert (door.worked, door.asked) == ([ONE] * 2, []), "a part of a message"
        client.sendall(READ[7:] + READ)
        door.turn()
        assert (len(door.asked), len(door.worked)) == (2, 5), "it wakes us, and asks twice"
    with door.connect(door.listen(HOST)) as client:
        client.sendall(READ)
        door.turn()
    assert len(door.worked) == 6, "the end of its connection, and nothing for the host"


def test_a_message_may_come_in_any_pieces(door: Door) -> None:
    with door.connect(door.listen(ONE)) as client:
        for byte in READ[:-1]:
            client.sendall(bytes([byte]))
            door.turn()
        assert door.asked == []
        client.sendall(READ[-1:] + READ)
        door.turn()
        assert client.recv(100) == READ * 2


def test_whoever_asks_much_has_a_turn_and_then_the_next_has_one(door: Door) -> None:
    path = door.listen(ONE)
    with door.connect(path) as greedy, door.connect(path) as modest:
        greedy.sendall(READ * (3 * MESSAGES_PER_TURN))
        modest.sendall(READ)
        door.poller.poll(0)
        assert len(door.asked) == MESSAGES_PER_TURN + 1
        assert door.doors.has_more
        for _ in range(3):
            door.doors.serve_ready()
        assert len(door.asked) == 3 * MESSAGES_PER_TURN + 1 and not door.doors.has_more
        assert len(greedy.recv(65536)) == len(READ) * 3 * MESSAGES_PER_TURN


def test_a_turn_is_over_behind_the_message_in_which_its_time_is(door: Door) -> None:
    path = door.listen(ONE)
    with door.connect(path) as greedy, door.connect(path) as modest:
        door.takes_ns = TURN_NS // 3 + 1
        greedy.sendall(READ * 7)
        modest.sendall(READ)
        door.poller.poll(0)
        assert len(door.asked) == 3 + 1
        door.doors.serve_ready()
        assert len(door.asked) == 6 + 1
        door.doors.serve_ready()
        assert len(greedy.recv(65536)) == len(READ) * 7


def test_what_takes_several_turns_is_asked_again_and_others_are_served_between(door: Door) -> None:
    path, check = door.listen(ONE), xs_wire.pack(Type.CONTROL, 1, 0, b"check\0")
    with door.connect(path) as patient, door.connect(path) as other:
        door.not_yet = 2
        patient.sendall(check + READ)
        other.sendall(READ)
        door.turn()
        assert len(other.recv(100)) == len(READ)
        assert [message.type for _, message in door.asked] == [Type.CONTROL, Type.READ, Type.CONTROL]
        door.turn()
        assert patient.recv(100) == check + READ, "one reply to each, in order"


def test_a_domain_whose_last_request_is_not_done_waits_and_others_do_not(door: Door) -> None:
    with door.connect(door.listen(ONE)) as busy, door.connect(door.listen(DomId(2))) as other:
        door.busy = {ONE}
        for client in (busy, other):
            client.sendall(READ)
        door.turn()
        assert [connection.domid for connection, _ in door.asked] == [DomId(2)] and door.doors.has_more
        door.busy = set()
        door.turn()
        assert busy.recv(100) == other.recv(100) == READ


def test_a_watchs_first_event_comes_behind_its_reply_and_all_others_before_theirs(door: Door) -> None:
    event = xs_wire.pack(Type.WATCH_EVENT, 0, 0, b"/w\0first\0")
    watch = xs_wire.pack(Type.WATCH, 1, 0, b"/w\0t\0")
    with door.connect(door.listen(ONE)) as client:
        client.sendall(watch)
        door.turn()
        assert client.recv(1000) == watch + event


def test_an_event_that_waits_already_is_not_added_again(door: Door) -> None:
    with door.connect(door.listen(ONE)) as client:
        client.sendall(READ)
        door.turn()
        client.recv(100)
        connection, _ = door.asked[0]
        for _ in range(3):
            door.fire(connection, b"same")
        door.doors.flush()
        assert client.recv(1000) == xs_wire.pack(Type.WATCH_EVENT, 0, 0, b"/w\0same\0")
        door.fire(connection, b"same")
        door.doors.flush()
        assert client.recv(1000)


def test_whoever_does_not_read_is_not_asked_for_until_it_does(door: Door) -> None:
    """Its requests wait, in the kernel in the end; nothing is lost."""
    big = xs_wire.pack(Type.READ, 1, 0, b"x" * 4000)
    with door.connect(door.listen(ONE)) as client:
        client.setblocking(False)
        sent = b""
        for _ in range(5000):
            try:
                sent += big[: client.send(big)]
            except BlockingIOError:
                served = len(door.asked)
                door.turn()
                if served == len(door.asked):
                    break
        assert len(door.asked) < 5000 and not door.doors.has_more
        received = 0
        for _ in range(10_000):
            try:
                received += len(client.recv(1 << 20))
            except BlockingIOError:
                if received >= len(sent) - len(big):
                    break
            door.turn()
        assert received >= len(sent) - len(big)
        assert door.logged == []


@pytest.mark.parametrize(("owner", "most"), [(ONE, STORE_GUEST_BACKLOG_BYTES_MAX), (HOST, STORE_BACKLOG_BYTES_MAX)])
def test_whoever_reads_no_events_is_closed_at_a_bound_and_the_log_says_so(
    door: Door, owner: DomId | None, most: int
) -> None:
    with door.connect(door.listen(owner)) as client:
        client.sendall(READ)
        door.turn()
        connection, _ = door.asked[0]
        for number in range(200_000):
            door.fire(connection, b"%d" % number + b"x" * 500)
            if connection.closed:
                break
            door.doors.flush()
    assert connection.closed
    ((text, domid),) = door.logged
    assert domid == (owner or 0) and f"{most} bytes of watch events wait for it" in text


def test_what_a_guests_small_events_are_kept_in_counts_too(door: Door) -> None:
    """Thousands of a few bytes each took five times as much of the broker's memory as of the bound."""
    kept, most = 0, STORE_GUEST_BACKLOG_BYTES_MAX // KEPT_IN_BYTES
    with door.connect(door.listen(ONE)) as client:
        client.sendall(READ)
        door.turn()
        connection, _ = door.asked[0]
        while not connection.closed:
            door.fire(connection, b"%d" % kept)
            kept += 1
    assert most // 2 < kept < most


def test_a_message_that_is_too_long_ends_the_connection_and_not_the_next_one(door: Door) -> None:
    path = door.listen(ONE)
    with door.connect(path) as client, door.connect(path) as other:
        client.sendall(READ + xs_wire.HEADER.pack(Type.READ, 1, 0, 4097))
        door.turn()
        assert len(door.asked) == 1
        assert (door.logged[0][1], "4097 bytes" in door.logged[0][0]) == (ONE, True)
        other.sendall(READ)
        door.turn()
        assert other.recv(100) == READ


@pytest.mark.parametrize(("owner", "most"), [(ONE, STORE_CONNECTIONS_MAX), (HOST, STORE_HOST_CONNECTIONS_MAX)])
def test_there_are_so_many_connections_and_one_more_is_closed(door: Door, owner: DomId | None, most: int) -> None:
    path = door.listen(owner)
    clients = [door.connect(path) for _ in range(most)]
    with door.connect(path) as refused:
        assert refused.recv(1) == b""
    assert f"{most} are open" in door.logged[0][0]
    clients.pop().close()
    door.turn()
    with door.connect(path) as client:
        client.sendall(READ)
        door.turn()
        assert client.recv(100) == READ
    for each in clients:
        each.close()
    door.turn()


def test_the_first_connection_of_a_domain_is_never_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "STORE_CONNECTIONS_SHARED", 2)
    first, second = door.listen(ONE), door.listen(DomId(2))
    with door.connect(first), door.connect(first), door.connect(first) as refused, door.connect(second) as client:
        assert refused.recv(1) == b"" and "domains have 2 open" in door.logged[0][0]
        client.sendall(READ)
        door.turn()
        assert client.recv(100) == READ


def test_a_process_of_another_domain_is_refused_at_every_socket_but_its_own(door: Door) -> None:
    own, others, hosts = door.listen(ONE), door.listen(DomId(2)), door.listen(HOST)
    door.living = {os.getpid(): ONE}
    for path in (others, hosts):
        with door.connect(path) as client:
            assert client.recv(1) == b""
    assert [domid for _, domid in door.logged] == [DomId(2), DOM0]
    with door.connect(own) as client:
        client.sendall(READ)
        door.turn()
        assert client.recv(100) == READ


def test_only_what_may_have_left_a_watch_or_transaction_has_an_end_that_the_tables_hear_of(door: Door) -> None:
    path = door.listen(ONE)
    for request in (READ, xs_wire.pack(Type.WATCH, 1, 0, b"/w\0t\0")):
        client = door.connect(path)
        client.sendall(request)
        door.turn()
        client.close()
        door.turn()
    assert [connection.number for connection in door.doors.take_ended()] == [door.asked[1][0].number]
    assert door.doors.take_ended() == []


def test_the_end_of_a_domain_ends_its_connections_and_nobody_elses(door: Door) -> None:
    with door.connect(door.listen(ONE)) as guest, door.connect(door.listen(HOST)) as host:
        for client in (guest, host):
            client.sendall(READ)
            door.turn()
            client.recv(100)
        door.doors.disconnect(ONE)
        door.sockets.release(ONE)
        assert store_key(ONE) not in door.held.by_key
        assert guest.recv(1) == b""
        host.sendall(READ)
        door.turn()
        assert host.recv(100) == READ
        door.doors.disconnect(DOM0)  # dom0's own: the host's are its, and not of its process
        host.sendall(READ)
        door.turn()
        assert host.recv(100) == READ


def test_a_spares_socket_is_there_before_it_takes_over_and_heard_when_it_does(door):
    """In place of the dead one's. Whoever connects sooner waits."""
    spare = door.directory / "spare"
    spare.mkdir()
    door.listen(ONE)
    door.sockets.make_ready(ONE, str(spare))
    door.sockets.make_ready(ONE, str(spare))  # as a new broker does
    with door.connect(spare / "socket") as early, door.connect(spare / "socket") as late:
        early.sendall(READ)
        door.turn()
        assert (door.asked, {store_key(ONE), spare_store_key(ONE)} <= door.held.by_key.keys()) == ([], True)
        door.sockets.release(ONE)
        door.sockets.promote(ONE)
        door.sockets.listen(ONE, "nowhere")
        late.sendall(READ)
        for _ in range(4):
            door.turn()
        assert (early.recv(100), late.recv(100)) == (READ, READ)
        assert spare_store_key(ONE) not in door.held.by_key


def test_a_spare_that_goes_takes_its_socket_with_it_and_one_without_is_promoted_without(door):
    spare = door.directory / "spare"
    spare.mkdir()
    door.sockets.make_ready(ONE, str(spare))
    door.sockets.release_spare(ONE)
    door.sockets.promote(ONE)
    assert not {store_key(ONE), spare_store_key(ONE)} & door.held.by_key.keys()
