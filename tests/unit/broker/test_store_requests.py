"""Requests of a turn and their record: nothing is answered before it is in the journal, however many share a record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.broker.hardware import NoHardware
from hvd.broker.hotplug import Asked
from hvd.broker.journal import Journal
from hvd.broker.ledger import LEFT_BY_HOST, Ledger
from hvd.broker.sessions import Sessions
from hvd.broker.state import State
from hvd.broker.store import WatchEvent
from hvd.broker.store.direct import PLAIN_MAX
from hvd.broker.store.sweeps import EDITS_PER_SLICE, Sweep
from hvd.broker.store_requests import StoreRequests
from hvd.broker.xenstored.connection import Connection
from hvd.broker.xenstored.doors import MESSAGES_PER_TURN, StoreDoors
from hvd.transport import xs_wire
from hvd.transport.ids import DOM0
from hvd.transport.xs_wire import Type
from tests.unit.broker.store.test_direct import tree_of

from .conftest import Board


class Line:
    """A client: what it sends in one piece, and what it is told, with the records that there were at that time."""

    pulls = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.says = self.told = b""
        self.records_when_told: list[int] = []
        self.room = 1 << 20
        """How much it takes; nothing any more below 0."""

    def receive(self) -> bytes:
        said, self.says = self.says, b""
        return said

    def send(self, data: bytes) -> int:
        if self.room < 0:
            raise EOFError
        taken = data[: self.room]
        self.room -= len(taken)
        self.told += taken
        self.records_when_told.append(len(self._broker.records()))
        return len(taken)

    def expect(self, *, reading: bool, writing: bool) -> None:
        """Always."""

    def close(self, fault: object) -> None:
        """Never."""


class Hardware(NoHardware):
    """That of a broker without descriptors: it tells its doors of events."""

    def __init__(self, doors: StoreDoors) -> None:
        super().__init__()
        self._doors = doors

    def store_event(self, event: WatchEvent) -> None:
        self._doors.add_event(event)


class Broker:
    """Tables, journal and doors, and two clients: of the host, and of a domain's socket."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[int]] = {}
        """Held by the machine: nothing."""
        board = Board()
        board.boot("Domain-0")
        self.guest = board.boot("guest")
        self.hypervisor = board.h
        # no turn is over because this machine is slow
        self.doors = StoreDoors(self.hypervisor.store.has_to_wait, print, lambda: 0, on_work=lambda _: None)
        self.hypervisor.attach(Hardware(self.doors))
        self.hypervisor.store.write(DOM0, 0, "/a/watched", b"")
        self.hypervisor.collect_store_events()
        self.state = State(self.hypervisor, Sessions())
        self.ledger = Ledger(self, print)  # type: ignore[arg-type]
        self.ledger.journal = Journal.create(b"a snapshot")
        self.ledger._worth_ns = 1 << 62  # however slow this machine is, no snapshot takes the place of the records
        upcalls = SimpleNamespace(hear_first=lambda domain: None)
        self.logged: list[str] = []
        publisher = SimpleNamespace(log=lambda text, domid: self.logged.append(text))
        self.doors.serve_by(StoreRequests(
            self.state, self.ledger,
            SimpleNamespace(settle=self.doors.flush, upcalls=upcalls, publisher=publisher),  # type: ignore[arg-type]
        ))  # fmt: skip
        self.clients = [Connection(DOM0, -2), Connection(DOM0, -3), Connection(self.guest, 2)]
        self.lines = [Line(self) for _ in self.clients]
        for client, line in zip(self.clients, self.lines, strict=True):
            self.doors.open(client, line)

    def records(self) -> list[Any]:
        assert self.ledger.journal is not None
        return [msgpack.unpackb(record)[:-1] for record in list(self.ledger.journal.records())[1:]]

    def ask(self, client: int, *requests: bytes) -> bytes:
        """All in one piece; what this client has been told since the last time."""
        self.lines[client].told = b""
        self.lines[client].says = b"".join(requests)
        self.doors.readable(self.clients[client])
        while self.doors.has_more or self.hypervisor.store.has_unsettled:
            self.hypervisor.store.settle()
            self.doors.serve_ready()
        return self.lines[client].told


@contextmanager
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    assert made.ledger.journal is not None
    os.close(made.ledger.journal.descriptor)
    made.ledger.journal.close()


def write(path: str, value: str) -> bytes:
    return xs_wire.pack(Type.WRITE, 1, 0, f"{path}\0{value}".encode())


WROTE = xs_wire.pack(Type.WRITE, 1, 0, b"OK\0")
WATCH = xs_wire.pack(Type.WATCH, 1, 0, b"/a/watched\0token\0")
EVENT = xs_wire.pack(Type.WATCH_EVENT, 0, 0, b"/a/watched\0token\0")


def test_the_writes_of_a_turn_are_one_record_and_answered_behind_it() -> None:
    with broker() as made:
        assert made.ask(0, *(write(f"/a/{number}", "v") for number in range(5))) == WROTE * 5
        [record] = made.records()
        assert record[0] == "store call" and record[4:] == [
            part for number in range(5) for part in (Type.WRITE, 0, f"/a/{number}\0v".encode())
        ]
        assert made.lines[0].records_when_told == [1]


def test_plain_requests_of_a_turn_are_recorded_as_they_came_if_any_of_them_writes() -> None:
    with broker() as made:
        made.ask(0, write("/a/b", "v"))
        before = len(made.records())
        stream = [write("/a/b", "1"), read("/a/b"), write("/a/b", "longer")]
        told = made.ask(0, *stream, read("/missing"))
        assert told.startswith(WROTE + xs_wire.pack(Type.READ, 1, 0, b"1") + WROTE)
        [record] = made.records()[before:]
        assert (record[0], record[2:]) == ("store stream", [b"".join(stream)])
        assert made.lines[0].records_when_told[-1] == len(made.records())
        made.ask(0, read("/a/b"))
        assert len(made.records()) == before + 1, "what only reads is not"


def test_nothing_is_plain_while_a_device_leaves_since_any_write_may_be_what_is_waited_for() -> None:
    with broker() as made:
        made.ask(0, write("/a/b", "v"))
        made.hypervisor.leaving[made.guest, "vbd", 1] = Asked(DOM0, "4")
        with pytest.MonkeyPatch.context() as patch:
            looked: list[object] = []
            patch.setattr("hvd.broker.hotplug.look", looked.append)
            made.ask(0, write("/a/b", "w"))
        assert looked and made.records()[-1][0] == "store call"


def test_a_write_that_somebody_hears_of_ends_the_record_and_its_event_is_told_behind_that() -> None:
    with broker() as made:
        made.ask(1, WATCH)
        made.lines[1].records_when_told.clear()
        made.lines[1].told = b""
        made.ask(0, write("/a/b", "1"), write("/a/watched", "2"), write("/a/b", "3"))
        assert made.lines[1].told == EVENT and made.lines[1].records_when_told == [2]
        assert [len(record[4:]) // 3 for record in made.records()] == [1, 2, 1]
        assert made.lines[0].records_when_told == [3]


def test_ones_own_event_comes_before_the_reply_to_the_write_that_fired_it_and_behind_earlier_replies() -> None:
    with broker() as made:
        made.ask(0, WATCH)
        told = made.ask(0, write("/a/b", "1"), write("/a/watched", "2"), write("/a/watched", "3"))
        assert told == WROTE + EVENT + WROTE + WROTE, "an event that waits already is not told again"


def test_a_guests_requests_have_a_record_and_an_intent_each() -> None:
    with broker() as made:
        made.ask(2, write("data/a", "1"), write("data/b", "2"))
        assert [record[2:] for record in made.records()] == [
            [made.guest, 2, Type.WRITE, 0, b"data/a\x001"], [made.guest, 2, Type.WRITE, 0, b"data/b\x002"],
        ]  # fmt: skip


def test_what_was_carried_out_before_a_client_broke_the_protocol_is_recorded() -> None:
    with broker() as made:
        made.ask(0, write("/a/b", "1"), xs_wire.HEADER.pack(Type.WRITE, 1, 0, xs_wire.PAYLOAD_MAX + 1))
        assert len(made.records()) == 1 and made.clients[0].closed


def read(path: str) -> bytes:
    return xs_wire.pack(Type.READ, 1, 0, f"{path}\0".encode())


@pytest.mark.parametrize(
    ("client", "requests", "plain"),
    [
        (0, [read("/a")], 1),
        (0, [write("/a/b", "v"), read("/a/b"), write("/a/b", "longer")], 1),
        (0, [write("/a/watched", "v")], 0),
        (0, [write("/a/watched", "v"), read("/a")], 0),
        (0, [read("/missing")], 0),
        (0, [write("/bad//", "v")], 0),
        (0, [xs_wire.pack(Type.RM, 1, 0, b"/a\0")], 0),
        (0, [xs_wire.pack(Type.TRANSACTION_START, 1, 0, b"\0")], 0),
        (0, [xs_wire.pack(Type.CONTROL, 1, 0, b"check\0")], 1),
        (0, [read("/a")] * (PLAIN_MAX + MESSAGES_PER_TURN + 1), 0),
        (0, [xs_wire.HEADER.pack(Type.READ, 1, 0, xs_wire.PAYLOAD_MAX + 1)], 0),
        (2, [read("data")], 0),
    ],
)
def test_a_turn_is_plain_if_it_leaves_nobody_anything_to_do(client: int, requests: list[bytes], plain: int) -> None:
    with broker() as made:
        made.ask(1, WATCH)
        made.doors.plain_turns = 0
        made.lines[client].says = b"".join(requests)
        made.doors.readable(made.clients[client])
        assert made.doors.plain_turns == plain


@pytest.mark.parametrize("room", [0, 5, len(WROTE), len(WROTE) + 1])
def test_what_a_client_does_not_take_at_once_comes_later_in_order(room: int) -> None:
    with broker() as made:
        made.ask(0, write("/a/b", "first"))
        line, answers = made.lines[0], WROTE + xs_wire.pack(Type.READ, 1, 0, b"v") + xs_wire.pack(Type.READ, 1, 0, b"v")
        line.room = room
        told = made.ask(0, write("/a/b", "v"), read("/a/b"))
        assert told == answers[:room]
        line.room = 1 << 20
        assert told + made.ask(0, read("/a/b")) == answers


def test_a_client_that_is_gone_when_it_is_answered_is_closed() -> None:
    with broker() as made:
        made.ask(0, write("/a/b", "first"))
        made.lines[0].room = -1
        made.ask(0, read("/a/b"))
        assert made.clients[0].closed and not made.clients[1].closed


def test_a_program_of_the_hosts_that_speaks_in_pieces_or_out_of_turn_is_answered_in_order() -> None:
    with broker() as made:
        made.ask(0, write("/a/b", "first"))
        value = read("/a/b")  # what looks like a message is none in the middle of another
        whole = xs_wire.pack(Type.WRITE, 1, 0, b"/a/b\0" + value)
        assert made.ask(0, whole[: -len(value)]) == b""
        assert made.ask(0, value + read("/a/b")) == WROTE + xs_wire.pack(Type.READ, 1, 0, value)
        for number in range(2 * EDITS_PER_SLICE):
            made.hypervisor.store.write(DOM0, 0, f"/many/{number}", b"")
        made.hypervisor.store.rm(DOM0, 0, "/many")
        made.lines[0].told, made.lines[0].says = b"", read("/a/b")
        made.doors.readable(made.clients[0])
        assert made.lines[0].told == b"", "what dom0 has removed is not quite done"


def test_no_turn_is_plain_while_requests_are_logged() -> None:
    with broker() as made:
        made.hypervisor.store_log = True
        made.ask(0, read("/a"))
        assert made.doors.plain_turns == 0 and made.logged


def test_whoever_may_reach_a_quota_waits_for_what_is_under_way_instead_of_having_it_done_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slices: list[Sweep[Any]] = []
    advance = Sweep.advance

    def advancing(sweep: Sweep[Any]) -> int:
        slices.append(sweep)
        return advance(sweep)

    monkeypatch.setattr(Sweep, "advance", advancing)
    with broker() as made:
        store = made.hypervisor.store
        for number in range(5 * EDITS_PER_SLICE):
            store.write(DOM0, 0, f"/many/{number}", b"")
        store.set_limit("nodes_max", store.usage(made.guest).nodes)
        made.hypervisor.collect_store_events()
        made.lines[0].says, made.lines[2].says = xs_wire.pack(Type.RM, 1, 0, b"/many\0"), write("data/new", "v")
        made.doors.readable(made.clients[0])
        slices.clear()
        made.doors.readable(made.clients[2])
        assert store.has_unsettled
        while store.has_unsettled:
            assert not slices and not made.lines[2].told
            store.settle()
            slices.clear()
            made.doors.serve_ready()
        made.doors.serve_ready()
        assert made.lines[2].told == xs_wire.pack(Type.ERROR, 1, 0, b"ENOSPC\0")


PATHS = st.sampled_from(["/a/watched", "/a/b", "/a", "/c/d", "/bad//", "data/x"])
REQUESTS = st.one_of(
    st.tuples(st.just(Type.WRITE), PATHS.map(lambda path: f"{path}\0value".encode()), st.sampled_from([0, 0, 1])),
    st.tuples(st.sampled_from([Type.READ, Type.MKDIR, Type.RM]), PATHS.map(lambda path: f"{path}\0".encode()),
              st.just(0)),
    st.tuples(st.just(Type.WATCH), st.sampled_from([b"/a\0t\0", b"/a/watched\0t\0"]), st.just(0)),
    st.tuples(st.just(Type.TRANSACTION_START), st.just(b"\0"), st.just(0)),
    st.tuples(st.just(Type.TRANSACTION_END), st.just(b"T\0"), st.just(1)),
)


@settings(max_examples=150)
@given(client=st.integers(0, 2), requests=st.lists(REQUESTS, min_size=1, max_size=40))
def test_whoever_asks_all_at_once_is_told_what_is_told_one_at_a_time_and_a_successor_has_it(
    client: int, requests: list[tuple[Type, bytes, int]]
) -> None:
    asked = [xs_wire.pack(kind, number, tx, payload) for number, (kind, payload, tx) in enumerate(requests)]
    with broker() as one, broker() as all_at_once:
        singly = b"".join(one.ask(client, each) for each in asked)
        replies = _without_events(all_at_once.ask(client, *asked))
        assert replies == _without_events(singly)
        stores = [each.hypervisor.store for each in (one, all_at_once, _replayed(all_at_once))]
        trees = [tree_of(store) for store in stores]
        assert trees[0] == trees[1] == trees[2]
        assert stores[0].statistics() == stores[1].statistics() == stores[2].statistics()


def _without_events(told: bytes) -> list[xs_wire.Message]:
    found, at = [], 0
    while (next_one := xs_wire.split(told, at)) is not None:
        message, at = next_one
        found += [message] if message.type != Type.WATCH_EVENT else []
    return found


def _replayed(live: Broker) -> Broker:
    with broker() as successor:
        for record in live.records():
            successor.state.apply(record)
            while successor.hypervisor.store.has_unsettled:
                successor.hypervisor.store.settle()
    return successor


@pytest.mark.parametrize("client", [0, 2])
def test_what_the_journal_has_no_room_for_is_refused_and_what_changes_nothing_is_answered(client: int) -> None:
    """The host's programs are privileged: half of what is spared is theirs."""
    with broker() as made:
        made.ask(0, write("/a/b", "1"))
        before, asked = len(made.records()), list[int]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(made.ledger, "has_room", lambda state, leaves: asked.append(leaves))
            refused = xs_wire.pack(Type.ERROR, 1, 0, b"ENOSPC\0")
            assert made.ask(client, write("/a/b", "2")) == refused
            assert made.ask(client, xs_wire.pack(Type.WATCH, 1, 0, b"/a/b\0token\0")) == refused
            assert made.ask(0, read("/a/b")) == xs_wire.pack(Type.READ, 1, 0, b"1")
        assert (set(asked) == {LEFT_BY_HOST}) is (client == 0)
        assert (len(made.records()), made.clients[client].left_traces) == (before, client == 0)
        made.ask(0, write("/a/b", "3"))
        assert made.ask(0, read("/a/b")) == xs_wire.pack(Type.READ, 1, 0, b"3")
