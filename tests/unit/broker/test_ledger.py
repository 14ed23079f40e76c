"""When a snapshot takes the place of what was carried out before it, and that nothing is lost when it does."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker import ledger as ledger_module
from hvd.broker.journal import Journal
from hvd.broker.ledger import AT_ONCE, IDLE_RECORDS, JOURNAL, REPLAY_NS, SNAPSHOTS_WORTH, Ledger
from hvd.broker.sessions import Sessions
from hvd.broker.state import State
from hvd.broker.store.parts import ROWS_PER_PART, WATCHES_PER_PART
from hvd.transport.ids import DOM0
from hvd.transport.xs_wire import Type

RESTARTED = ["recovered", 0, 1, "killed by SIGKILL"]


class Held:
    """What the machine would hold: the newest journal, as a successor would map it."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[int]] = {}
        self.snapshots = 0

    def hold(self, key: str, descriptors: list[int]) -> None:
        self.close()
        self.by_key[key] = descriptors
        self.snapshots += 1

    def close(self) -> None:
        for descriptor in self.by_key.pop(JOURNAL, []):
            os.close(descriptor)


class Bookkeeper:
    """A ledger, its state and a clock that the test sets."""

    def __init__(self, board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        monkeypatch.setattr(ledger_module, "time", SimpleNamespace(monotonic_ns=lambda: self.now_ns))
        self.held = Held()
        self.state = State(board.h, Sessions())
        self.ledger = Ledger(self.held)  # type: ignore[arg-type]
        assert self.ledger.is_new
        self.ledger.take_snapshot(self.state)

    def carry_out(self, took_ns: int) -> None:
        began_ns = self.now_ns
        self.state.apply(RESTARTED)
        self.now_ns += took_ns
        self.ledger.record(self.state, RESTARTED, began_ns)

    @property
    def found(self) -> list[Any]:
        """What a successor would have."""
        journal = Journal(self.held.by_key[JOURNAL][0])
        try:
            return State.restore(journal.records()).hypervisor.events.after(0)
        finally:
            journal.close()


@pytest.fixture
def keeper(board, monkeypatch):
    made = Bookkeeper(board, monkeypatch)
    yield made
    assert made.ledger.journal is not None
    made.ledger.journal.close()
    made.held.close()


def test_a_successor_has_every_command_whether_it_is_in_the_snapshot_or_behind_it(keeper):
    for number in range(300):
        keeper.carry_out(took_ns=REPLAY_NS // 40)
        if number % 50 == 0:
            assert keeper.found == keeper.state.hypervisor.events.after(0)
    assert keeper.held.snapshots == 1 + 300 // 41
    assert keeper.found == keeper.state.hypervisor.events.after(0)


def test_a_snapshot_that_takes_long_is_taken_seldom(keeper, monkeypatch):
    snapshot = keeper.state.snapshot

    def slow() -> bytes:
        keeper.now_ns += 10 * REPLAY_NS
        return bytes(snapshot())

    monkeypatch.setattr(keeper.state, "snapshot", slow)
    keeper.ledger.take_snapshot(keeper.state)
    before = keeper.held.snapshots
    for _ in range(10 * SNAPSHOTS_WORTH):
        keeper.carry_out(took_ns=REPLAY_NS)
    assert keeper.held.snapshots == before
    keeper.carry_out(took_ns=REPLAY_NS)
    assert keeper.held.snapshots == before + 1


def test_a_journal_that_is_full_begins_anew(keeper, monkeypatch):
    monkeypatch.setattr(ledger_module, "REPLAY_NS", 10**18)
    size = os.fstat(keeper.held.by_key[JOURNAL][0]).st_size
    snapshots = keeper.held.snapshots
    command = ["recovered", 0, 1, "x" * 60_000]
    for _ in range(2 + size // 60_000):
        keeper.state.apply(command)
        keeper.ledger.record(keeper.state, command, keeper.now_ns)
    assert keeper.held.snapshots == snapshots + 1
    assert keeper.found == keeper.state.hypervisor.events.after(0)


def test_while_nobody_asks_a_snapshot_is_taken_if_it_saves_anything(keeper):
    for _ in range(IDLE_RECORDS - 1):
        keeper.carry_out(took_ns=0)
    keeper.ledger.tidy(keeper.state)
    assert keeper.held.snapshots == 1
    keeper.carry_out(took_ns=0)
    for _ in range(3):
        keeper.ledger.tidy(keeper.state)
    assert keeper.held.snapshots == 2


def test_an_intent_that_is_open_when_a_snapshot_is_taken_is_carried_out_by_then(keeper):
    keeper.ledger.open_intent("d:1.1", 7)
    keeper.carry_out(took_ns=2 * REPLAY_NS)
    keeper.ledger.close_intent()
    journal = Journal(keeper.held.by_key[JOURNAL][0])
    assert journal.intent() is None
    journal.close()


# ---- in parts --------------------------------------------------------------------------------------------------------

MANY = 10 * AT_ONCE
MANY_WATCHES = 3 * WATCHES_PER_PART


class Large(Bookkeeper):
    """One with a large store, and a client of it."""

    def __init__(self, board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(board, monkeypatch)
        for number in range(MANY):
            board.h.store.write(DOM0, 0, f"/many/{number % 20}/{number}", b"v")
        for number in range(MANY_WATCHES):
            board.h.store.watch(DOM0, f"/watched/{number % 7}", f"{number}", connection=5)
        board.h.store.take_events()
        self.tx = board.h.store.transaction_start(DOM0)
        board.h.store.write(DOM0, self.tx, "/many/open", b"in a transaction")
        self.ledger.take_snapshot(self.state)

    def call(self, kind: Type, *words: str, took_ns: int = 0) -> None:
        began_ns = self.now_ns
        payload = "\0".join(words).encode() + (b"\0" if kind is not Type.WRITE else b"")
        command = ["store call", began_ns, 0, 5, int(kind), 0, payload]
        self.state.apply(command)
        self.now_ns += took_ns
        self.ledger.record(self.state, command, began_ns)

    def successor(self) -> State:
        journal = Journal(self.held.by_key[JOURNAL][0])
        try:
            return State.restore(journal.records())
        finally:
            journal.close()

    def assert_a_successor_has_it_all(self) -> None:
        live, found = self.state.hypervisor.store, self.successor().hypervisor.store
        assert tree_of(found) == tree_of(live)
        assert found.statistics() == live.statistics()
        assert found.read(DOM0, self.tx, "/many/open") == b"in a transaction"
        assert not found.check()
        found.write(DOM0, 0, "/watched/3/below", b"v")
        told = [event.token for event in found.take_events()]
        assert told == [f"{number}" for number in range(MANY_WATCHES) if number % 7 == 3], "in the order they were set"


def tree_of(store: Any, path: str = "") -> dict[str, bytes]:
    found = {path: store.read(DOM0, 0, path or "/")}
    for name in store.directory(DOM0, 0, path or "/"):
        found |= tree_of(store, f"{path}/{name}")
    return found


@pytest.fixture
def large(board, monkeypatch):
    made = Large(board, monkeypatch)
    yield made
    made.ledger.drop_draft()
    assert made.ledger.journal is not None
    made.ledger.journal.close()
    made.held.close()


def test_a_snapshot_of_a_large_store_is_taken_in_parts_and_what_happens_meanwhile_is_behind_it(large):
    snapshots = large.held.snapshots
    large.call(Type.WRITE, "/first", "1", took_ns=100 * REPLAY_NS)
    assert large.ledger.is_drafting and large.held.snapshots == snapshots
    steps = 0
    while large.ledger.is_drafting:
        large.call(Type.WRITE, f"/many/3/{steps}", "changed")
        large.call(Type.WRITE, f"/new/{steps}", "made")
        large.call(Type.RM, f"/many/4/{4 + 20 * steps}")
        if steps % 7 == 0:
            large.assert_a_successor_has_it_all()
        large.ledger.go_on()
        steps += 1
    assert steps >= MANY // ROWS_PER_PART
    assert large.held.snapshots == snapshots + 1
    large.assert_a_successor_has_it_all()
    large.call(Type.WRITE, "/last", "1")
    large.assert_a_successor_has_it_all()


def test_a_journal_that_is_full_meanwhile_begins_anew_at_once(large):
    snapshots = large.held.snapshots
    large.call(Type.WRITE, "/first", "1", took_ns=100 * REPLAY_NS)
    size = os.fstat(large.held.by_key[JOURNAL][0]).st_size
    for number in range(2 + size // 3000):
        large.call(Type.WRITE, f"/full/{number % 3}", "x" * 3000)
    assert not large.ledger.is_drafting and large.held.snapshots >= snapshots + 1
    large.assert_a_successor_has_it_all()


def test_while_nobody_asks_a_large_store_is_written_in_parts_too(large):
    for number in range(IDLE_RECORDS):
        large.call(Type.WRITE, f"/idle/{number}", "x")
    large.ledger.tidy(large.state)
    assert large.ledger.is_drafting
    large.ledger.tidy(large.state)
    while large.ledger.is_drafting:
        large.ledger.go_on()
    large.assert_a_successor_has_it_all()


def test_nothing_is_begun_while_a_change_is_under_way(large):
    large.call(Type.RM, "/many", took_ns=0)
    assert large.state.hypervisor.store.has_unsettled
    for _ in range(IDLE_RECORDS):
        large.call(Type.WRITE, "/x", "x")
    snapshots = large.held.snapshots
    large.ledger.tidy(large.state)
    assert not large.ledger.is_drafting and large.held.snapshots == snapshots
    large.successor().hypervisor.store.check()
