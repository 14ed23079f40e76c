"""When a snapshot takes the place of what was carried out before it, and that nothing is lost when it does."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker import draft as draft_module
from hvd.broker import ledger as ledger_module
from hvd.broker.draft import BYTES_PER_STEP, COPIED_AT_ONCE, STEPS_MAX
from hvd.broker.journal import Journal, JournalFull, JournalWriter
from hvd.broker.ledger import (
    AGAIN_LEAST_NS,
    AGAIN_MOST_NS,
    AT_ONCE,
    IDLE_RECORDS,
    JOURNAL,
    LEFT_BY_ANYBODY,
    LEFT_BY_HOST,
    REPLAY_NS,
    ROOMS_MAX,
    SNAPSHOTS_WORTH,
    Ledger,
)
from hvd.broker.sessions import Sessions
from hvd.broker.state import State
from hvd.broker.store.parts import ROWS_PER_PART, WATCHES_PER_PART
from hvd.transport.ids import DOM0
from hvd.transport.limits import JOURNAL_BYTES_SPARED
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
        self.told: list[str] = []
        self.state = State(board.h, Sessions())
        self.ledger = Ledger(self.held, self.told.append)  # type: ignore[arg-type]
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


    def succeed(self) -> State:
        """A successor's ledger, and state, which the next commands are carried out on."""
        assert self.ledger.journal is not None
        self.ledger.journal.close()
        self.ledger = Ledger(self.held, self.told.append)  # type: ignore[arg-type]
        assert not self.ledger.is_new and self.ledger.journal is not None
        self.state = State.restore(self.ledger.journal.records())
        self.ledger.has_replayed(self.state.replayed)
        return self.state


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


def test_what_a_successor_has_replayed_is_replayed_no_second_time_once_nobody_asks(keeper):
    for _ in range(IDLE_RECORDS - 1):
        keeper.carry_out(took_ns=0)
    before = keeper.held.snapshots
    assert keeper.succeed().replayed == IDLE_RECORDS - 1
    keeper.ledger.tidy(keeper.state)
    assert keeper.held.snapshots == before
    keeper.carry_out(took_ns=0)
    keeper.ledger.tidy(keeper.state)
    assert keeper.held.snapshots == before + 1
    assert keeper.succeed().replayed == 0


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

    def settle(self) -> None:
        self.state.apply(["store settle", self.now_ns])
        self.ledger.record(self.state, ["store settle", self.now_ns], self.now_ns)

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


def fill(large: Large, *, asks: bool = False) -> int:
    """Until the journal is full, or larger than it was; how large it was. `asks`: whether there is room for each."""
    size = before = os.fstat(large.held.by_key[JOURNAL][0]).st_size
    snapshots = large.held.snapshots
    for number in range(2 + size // 3000):
        assert not asks or large.ledger.has_room(large.state, LEFT_BY_ANYBODY), "the host has refused nothing"
        large.call(Type.WRITE, f"/full/{number % 3}", "x" * 3000)
        size = os.fstat(large.held.by_key[JOURNAL][0]).st_size
        if size > before or large.held.snapshots > snapshots:
            return before
    raise AssertionError("the journal never was full")


@pytest.mark.parametrize("drafting", [False, True])
def test_a_full_journal_of_a_large_store_gets_room_while_a_snapshot_is_on_its_way(large, monkeypatch, drafting):
    monkeypatch.setattr(ledger_module, "REPLAY_NS", 10**18)
    monkeypatch.setattr(draft_module, "BYTES_PER_STEP", 1 << 40)
    if drafting:
        large.call(Type.WRITE, "/first", "1", took_ns=10**6 * REPLAY_NS)
    snapshots = large.held.snapshots
    before = fill(large)
    assert large.ledger.is_drafting and large.held.snapshots == snapshots
    assert os.fstat(large.held.by_key[JOURNAL][0]).st_size > before
    large.assert_a_successor_has_it_all()
    while large.ledger.is_drafting:
        large.ledger.go_on()
    assert large.held.snapshots == snapshots + 1
    large.assert_a_successor_has_it_all()


@pytest.mark.parametrize("asks", [False, True])
def test_a_journal_that_has_been_given_room_often_enough_begins_anew_at_once(large, monkeypatch, asks):
    monkeypatch.setattr(ledger_module, "ROOMS_MAX", 1)
    monkeypatch.setattr(draft_module, "BYTES_PER_STEP", 1 << 40)
    snapshots = large.held.snapshots
    fill(large, asks=asks)
    assert large.ledger.is_drafting
    fill(large, asks=asks)
    assert not large.ledger.is_drafting and large.held.snapshots == snapshots + 1
    large.assert_a_successor_has_it_all()


def test_whoever_has_much_carried_out_has_the_snapshot_done_sooner(large):
    def turns(size: int) -> int:
        large.call(Type.WRITE, "/first", "1", took_ns=10**6 * REPLAY_NS)
        assert large.ledger.is_drafting
        count = 0
        while large.ledger.is_drafting:
            large.call(Type.WRITE, "/big", "x" * size)
            if large.ledger.is_drafting:
                large.ledger.go_on()
            count += 1
        large.ledger.take_snapshot(large.state)  # the next one copies nothing
        return count

    slowly = turns(1)
    each = STEPS_MAX + 1  # one is the turn's own
    assert slowly / each <= turns(9 * BYTES_PER_STEP) < slowly / (each - 1)


def test_however_much_one_turn_brings_the_journal_that_counts_grows_by_so_much_a_step(large, monkeypatch):
    size = 3000
    steps: list[int] = []
    go_on = draft_module.Draft.go_on

    def counted(draft: draft_module.Draft) -> Journal | None:
        steps.append(1)
        return go_on(draft)

    monkeypatch.setattr(draft_module.Draft, "go_on", counted)
    large.call(Type.WRITE, "/first", "1", took_ns=10**6 * REPLAY_NS)
    snapshots, written = large.held.snapshots, 0
    assert large.ledger.is_drafting
    while large.ledger.is_drafting:
        large.call(Type.WRITE, f"/new/{written}", "x" * size)  # and the loop never comes round
        written += 1
        assert len(steps) >= written * size // (BYTES_PER_STEP + size)
    assert large.held.snapshots == snapshots + 1
    assert MANY // ROWS_PER_PART < len(steps) < 2 * MANY // ROWS_PER_PART
    large.assert_a_successor_has_it_all()


@pytest.mark.parametrize("each", [COPIED_AT_ONCE * 3 // 4, 2 * COPIED_AT_ONCE])
def test_what_is_carried_out_meanwhile_is_written_a_little_at_a_time_however_large_it_is(large, monkeypatch, each):
    written(large)
    sizes: list[int] = []
    put = JournalWriter.put

    def noted(writer: JournalWriter, records: list[bytes]) -> None:
        sizes.append(sum(map(len, records)))
        put(writer, records)

    large.call(Type.WRITE, "/begun", "1", took_ns=10**6 * REPLAY_NS)
    monkeypatch.setattr(JournalWriter, "put", noted)
    command = ["recovered", 0, 1, "x" * each]
    carried_out = 0
    while large.ledger.is_drafting:
        large.state.apply(command)
        large.ledger.record(large.state, command, large.now_ns)
        carried_out += 1
        if large.ledger.is_drafting:
            large.ledger.go_on()
    assert max(sizes) < max(COPIED_AT_ONCE, each) + 100 < carried_out * each
    large.assert_a_successor_has_it_all()


def written(large: Large) -> int:
    """Rows that a snapshot makes, from the first step to the last."""
    assert not large.ledger.is_drafting
    large.call(Type.WRITE, "/begun", "1", took_ns=10**6 * REPLAY_NS)
    assert large.ledger.is_drafting
    before = dict(large.ledger._draft._last.packing.position)
    while large.ledger.is_drafting:
        large.ledger.go_on()
    return len(large.ledger._written.packing.position) - len(before)


def test_what_has_not_changed_since_the_last_snapshot_is_copied_and_not_made_again(large):
    first = written(large)
    assert first > MANY
    large.assert_a_successor_has_it_all()
    large.call(Type.WRITE, "/many/3/3", "changed")
    large.call(Type.RM, "/many/4/4")
    assert written(large) < 60
    large.assert_a_successor_has_it_all()
    large.state.hypervisor.store.unwatch(DOM0, "/watched/1", "1", connection=5)
    large.state.hypervisor.store.watch(DOM0, "/watched/8", "new", connection=5)
    assert written(large) < 60
    large.assert_a_successor_has_it_all()
    assert written(large) < 60
    large.assert_a_successor_has_it_all()


def test_when_a_third_of_what_would_be_copied_is_of_nodes_that_are_gone_all_is_made_anew(large):
    store = large.state.hypervisor.store
    store.transaction_end(DOM0, large.tx, False)  # it has a tree of its own
    first = written(large)
    most = 0
    for number in range(MANY):
        large.call(Type.WRITE, f"/many/{number % 20}/{number}", "again")
        if number % 100 == 99:
            written(large)
            most = max(most, len(large.ledger._written.packing.position))
    assert first * 3 // 2 < most < 2 * first
    for number in range(20):
        large.call(Type.RM, f"/many/{number}")
    while store.has_unsettled:
        large.settle()
    for number in range(AT_ONCE):
        large.call(Type.WRITE, f"/few/{number}", "x")
    written(large)
    assert len(large.ledger._written.packing.position) < first / 2
    while store.has_remains:
        store.let_go()
    found = large.successor().hypervisor.store
    assert tree_of(found) == tree_of(store) and not found.check() and not store.check()


def test_a_draft_that_is_given_up_is_copied_from_by_none(large):
    written(large)
    large.call(Type.WRITE, "/many/3/3", "changed", took_ns=10**6 * REPLAY_NS)
    large.ledger.go_on()
    large.ledger.drop_draft()
    assert written(large) > MANY
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


def test_a_journal_that_was_full_while_a_change_was_under_way_is_begun_anew_when_it_is_settled(large):
    large.call(Type.RM, "/many")
    while not large.ledger._rooms:
        large.state.apply(LONG)
        large.ledger.record(large.state, LONG, large.now_ns)
    assert not large.ledger.is_drafting
    while large.state.hypervisor.store.has_unsettled:
        large.settle()
    assert large.ledger.is_drafting
    while large.ledger.is_drafting:
        large.ledger.go_on()
    large.assert_a_successor_has_it_all()


def test_guests_that_remove_in_turns_do_not_keep_a_snapshot_from_being_begun(board, large):
    store = large.state.hypervisor.store
    _, *guests = board.boot("dom0"), board.boot("one"), board.boot("other")
    large.ledger.take_snapshot(large.state)
    for _ in range(20):
        for domid in guests:
            if not store.is_settling(domid):
                for number in range(4):
                    store.mkdir(domid, 0, f"data/many/{number}{'/x' * 40}")
                store.rm(domid, 0, "data/many")
                large.carry_out(took_ns=100 * REPLAY_NS)
        assert store.has_unsettled, "or this shows nothing"
        large.settle()
        if large.ledger.is_drafting:
            break
    assert large.ledger.is_drafting and not any(map(store.is_settling, guests))


# ---- a host that refuses ---------------------------------------------------------------------------------------------

FEW_BYTES = 100_000
"""Of a file: less than any journal has, more than a test's own files."""
LONG = ["recovered", 0, 1, "x" * 60_000]


@contextmanager
def no_file_grows() -> Iterator[None]:
    """Every file that is made or made larger meanwhile is refused, a memfd too."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill_up(keeper: Bookkeeper) -> int:
    """Carry out what the ledger has room for; how many it was."""
    carried_out = 0
    while keeper.ledger.has_room(keeper.state, LEFT_BY_ANYBODY):
        keeper.state.apply(LONG)
        keeper.ledger.record(keeper.state, LONG, keeper.now_ns)
        carried_out += 1
    return carried_out


def test_a_snapshot_that_the_host_refuses_is_taken_when_it_does_not_and_tried_seldom_until_then(keeper):
    for _ in range(IDLE_RECORDS):
        keeper.carry_out(took_ns=0)
    with no_file_grows():
        for tries in range(1, 8):
            keeper.ledger.tidy(keeper.state)
            keeper.ledger.tidy(keeper.state)
            assert len(keeper.told) == tries
            wait_ns = min(AGAIN_LEAST_NS << (tries - 1), AGAIN_MOST_NS)
            assert "no snapshot of the journal: the host refuses it: File too large" in keeper.told[-1]
            assert keeper.told[-1].endswith(f"tried again in {wait_ns // 1_000_000_000} s")
            keeper.state.apply(RESTARTED)
            began_ns = keeper.now_ns - 2 * REPLAY_NS  # nor where much would be replayed
            keeper.ledger.record(keeper.state, RESTARTED, began_ns)
            assert len(keeper.told) == tries
            keeper.now_ns += wait_ns
        assert keeper.found == keeper.state.hypervisor.events.after(0)
    keeper.now_ns += 2 * AGAIN_MOST_NS
    keeper.ledger.tidy(keeper.state)
    assert keeper.held.snapshots == 2
    assert keeper.succeed().replayed == 0


@pytest.mark.parametrize("refused", ["the file", "the machine"])
def test_a_snapshot_in_parts_that_the_host_refuses_is_given_up_and_taken_whole_later(large, monkeypatch, refused):
    for _ in range(IDLE_RECORDS):
        large.call(Type.WRITE, "/many/1/1", "behind the last")
    large.ledger.tidy(large.state)
    taken = large.held.snapshots
    if refused == "the file":
        with no_file_grows():
            while large.ledger.is_drafting:
                large.ledger.go_on()
    else:
        with monkeypatch.context() as host:
            host.setattr(large.held, "hold", refuse)
            while large.ledger.is_drafting:
                large.ledger.go_on()
    assert len(large.told) == 1
    assert large.held.snapshots == taken
    large.call(Type.WRITE, "/many/2/2", "behind the one that was given up")
    large.assert_a_successor_has_it_all()
    large.now_ns += AGAIN_LEAST_NS
    large.ledger.tidy(large.state)
    assert large.ledger.is_drafting, "what had been carried out before the one that was refused counts"
    while large.ledger.is_drafting:
        large.ledger.go_on()
    assert large.held.snapshots == taken + 1
    large.assert_a_successor_has_it_all()


def refuse(key: str, descriptors: list[int]) -> None:
    """As HeldDescriptors.hold, which closes what it cannot keep."""
    for descriptor in descriptors:
        os.close(descriptor)
    raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))


def test_where_there_is_no_room_and_the_host_gives_none_what_can_be_refused_is_ahead_of_what_cannot(keeper):
    with no_file_grows():
        assert fill_up(keeper)
        assert [text for text in keeper.told if "until then nothing is changed (tried again in 1 s)" in text]
        told = len(keeper.told)
        assert not keeper.ledger.has_room(keeper.state, LEFT_BY_ANYBODY)
        assert len(keeper.told) == told, "it is not tried for each that asks"
        assert keeper.ledger.has_room(keeper.state, LEFT_BY_HOST)
        for _ in range((JOURNAL_BYTES_SPARED - 2 * 60_000) // 60_000):
            keeper.state.apply(LONG)
            keeper.ledger.record(keeper.state, LONG, keeper.now_ns)
        assert not keeper.ledger.has_room(keeper.state, LEFT_BY_HOST)
        assert keeper.found == keeper.state.hypervisor.events.after(0)
    assert "File too large" in keeper.ledger.full
    keeper.now_ns += AGAIN_LEAST_NS
    assert keeper.ledger.has_room(keeper.state, LEFT_BY_ANYBODY)
    keeper.carry_out(took_ns=0)
    assert keeper.found == keeper.state.hypervisor.events.after(0)


def test_a_journal_as_large_as_may_be_gets_no_room_and_a_snapshot_when_the_host_lets_it(keeper):
    keeper.ledger._snapshots.at_ns = 1 << 62  # the host has refused one, and others meanwhile
    for _ in range(ROOMS_MAX):
        size = os.fstat(keeper.held.by_key[JOURNAL][0]).st_size
        while os.fstat(keeper.held.by_key[JOURNAL][0]).st_size == size:
            assert keeper.ledger.has_room(keeper.state, LEFT_BY_ANYBODY)
            keeper.state.apply(LONG)
            keeper.ledger.record(keeper.state, LONG, keeper.now_ns)
    with no_file_grows():
        fill_up(keeper)
    keeper.now_ns += AGAIN_LEAST_NS
    assert keeper.ledger.has_room(keeper.state, LEFT_BY_ANYBODY)
    assert keeper.held.snapshots == 2
    assert keeper.found == keeper.state.hypervisor.events.after(0)


def test_what_cannot_be_noted_whatever_is_tried_ends_the_broker(keeper):
    with no_file_grows():
        fill_up(keeper)
        with pytest.raises(JournalFull, match="the host refuses another: File too large"):
            for _ in range(JOURNAL_BYTES_SPARED // 60_000 + 1):
                keeper.state.apply(LONG)
                keeper.ledger.record(keeper.state, LONG, keeper.now_ns)
