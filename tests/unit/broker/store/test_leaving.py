"""Domains leave while others remove, give away and commit what they own: when all is told, nothing is left of them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hvd.broker.store import Store, StoreError, engine
from hvd.broker.store.sweeps import Sweep
from hvd.broker.store.tree import subtree
from hvd.transport.ids import DOM0, DomId

PER_SLICE = 2
"""So few nodes are told of at once that all of this may come between two slices."""
GUESTS = (DomId(5), DomId(7))
CALLERS = st.sampled_from([DOM0, *GUESTS])
HOMES = [f"/local/domain/{guest}" for guest in GUESTS]
PATHS = st.sampled_from([path for home in HOMES for path in (home, f"{home}/a")] + ["/zz"])


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    advance = Sweep.advance

    def advance_little(self: Sweep[object]) -> int:
        self.per_slice = PER_SLICE
        return advance(self)

    monkeypatch.setattr(Sweep, "advance", advance_little)
    monkeypatch.setattr(engine, "EDITS_PER_SLICE", PER_SLICE)
    yield


class Departing(RuleBasedStateMachine):
    """Guests of any path's owner, who come, go and come again."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.open: list[tuple[DomId, int]] = []

    @initialize()
    def begin(self) -> None:
        for guest in GUESTS:
            self.come_again(guest)

    @rule(caller=CALLERS, path=PATHS, count=st.integers(0, 3 * PER_SLICE), tx=st.booleans())
    def make(self, caller: DomId, path: str, count: int, tx: bool) -> None:
        with suppress(StoreError):
            for number in range(count):
                self.store.write(caller, self._tx(caller) if tx else 0, f"{path}/{number}", b"v")

    @rule(caller=CALLERS, path=PATHS, tx=st.booleans())
    def remove(self, caller: DomId, path: str, tx: bool) -> None:
        with suppress(StoreError):
            self.store.rm(caller, self._tx(caller) if tx else 0, path)

    @rule(path=PATHS, owner=CALLERS, tx=st.booleans())
    def give(self, path: str, owner: DomId, tx: bool) -> None:
        with suppress(StoreError):
            self.store.set_perms(DOM0, self._tx(DOM0) if tx else 0, path, [f"b{owner}"])

    @rule(caller=CALLERS)
    def start(self, caller: DomId) -> None:
        with suppress(StoreError):
            self.open.append((caller, self.store.transaction_start(caller)))

    @rule(commit=st.booleans())
    def end(self, commit: bool) -> None:
        if self.open:
            with suppress(StoreError):
                self.store.transaction_end(*self.open.pop(0), commit)

    @rule(guest=st.sampled_from(GUESTS))
    def leave(self, guest: DomId) -> None:
        self.open = [each for each in self.open if each[0] != guest]
        self.store.forget_domain(guest)

    @rule(guests=st.permutations(GUESTS), path=PATHS, again=st.booleans())
    def leave_at_once(self, guests: list[DomId], path: str, again: bool) -> None:
        for guest in guests:
            self.leave(guest)
            self.remove(DOM0, path, tx=False)
        for guest in guests if again else []:
            self.come_again(guest)

    @rule(guest=st.sampled_from(GUESTS))
    def come_again(self, guest: DomId) -> None:
        self.store.introduce(guest)
        with suppress(StoreError):  # nobody can make a node below one of who is leaving
            self.store.mkdir(DOM0, 0, f"/local/domain/{guest}")
            self.store.set_perms(DOM0, 0, f"/local/domain/{guest}", [f"b{guest}"])

    @rule(slices=st.integers(1, 3))
    def settle(self, slices: int) -> None:
        for _ in range(slices):
            self.store.settle()

    @rule(restores=st.booleans())
    def count_what_is_gone(self, restores: bool) -> None:
        self.store._engine._departures.count_all()
        if restores:
            self.store = pickle.loads(pickle.dumps(self.store))

    @invariant()
    def who_is_gone_owns_nothing_when_all_is_told(self) -> None:
        store = self.store
        store.take_events()
        if store.has_unsettled:
            return
        living = store._engine.domains.living
        assert not store._engine.leaving and not store._engine._departures._under_way
        assert not store.check()
        for path, node in subtree("/", store._engine.root):
            who = node.permissions[0].who
            assert living.get(who.domid) == who, path

    def teardown(self) -> None:
        while self.store.has_unsettled:
            self.store.settle()
        self.who_is_gone_owns_nothing_when_all_is_told()

    def _tx(self, caller: DomId) -> int:
        return next((tx for who, tx in self.open if who == caller), 0)


@pytest.mark.usefixtures("small_slices")
def test_whoever_leaves_and_whatever_comes_between_nothing_of_the_dead_is_left() -> None:
    run_state_machine_as_test(Departing, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))
