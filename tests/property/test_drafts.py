"""Snapshots against what lives: while one is on its way a broker may die at any step, and its successor has all of it.

The commands are those of test_hypervisor.py; the journal, its snapshots in parts and what they copy of the last one are
a broker's own. All parts are small, so that each snapshot takes many steps and much comes between them; and there is
always one on its way, as whatever is carried out is reason enough for the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from hvd.broker import draft, ledger, rows
from hvd.broker.journal import Journal
from hvd.broker.ledger import JOURNAL, Ledger
from hvd.broker.state import State
from hvd.broker.store import parts
from tests.property.test_hypervisor import Replay, contents
from tests.unit.broker.test_ledger import Held


class Drafts(Replay):
    """A broker whose journal is kept as a broker keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()
        self.ledger = Ledger(self.held, print)  # type: ignore[arg-type]
        self.ledger.take_snapshot(self.state)

    def command(self, *command: Any) -> None:
        began_ns = time.monotonic_ns()
        self.state.apply(list(command))
        self.ledger.record(self.state, list(command), began_ns)

    def successor(self) -> State:
        journal = Journal(self.held.by_key[JOURNAL][0])
        try:
            return State.restore(journal.records())
        finally:
            journal.close()

    @invariant()
    def a_successor_has_all_of_it(self) -> None:
        if self.ledger.is_drafting:
            assert contents(self.successor()) == contents(self.state)

    @rule()
    def a_snapshot_is_taken(self) -> None:
        self.ledger.take_snapshot(self.state)

    @rule()
    def a_snapshot_in_parts_is_begun(self) -> None:
        while self.state.hypervisor.store.has_unsettled:
            self.command("store settle", self.now)
        self.ledger.tidy(self.state)

    @precondition(lambda self: self.ledger.is_drafting)
    @rule(most=st.sampled_from([1, 3, 1000]))
    def some_of_it_is_written(self, most: int) -> None:
        for _ in range(most):
            if self.ledger.is_drafting:
                self.ledger.go_on()
        if most == 1000:
            assert not self.ledger.is_drafting and contents(self.successor()) == contents(self.state)

    @rule()
    def the_broker_dies(self) -> None:
        successor = self.successor()
        assert contents(successor) == contents(self.state)
        self.end()
        self.state, self.ledger = successor, Ledger(self.held, print)  # type: ignore[arg-type]
        self.ledger.has_replayed(successor.replayed)
        self.state.hypervisor.attach(self.hardware)
        for queue in self.state.hypervisor.upcalls.values():
            queue.send_again()

    def end(self) -> None:
        """Of one broker; its journal stays."""
        self.ledger.drop_draft()
        assert self.ledger.journal is not None
        self.ledger.journal.close()

    def teardown(self) -> None:
        try:
            assert contents(self.successor()) == contents(self.state)
        finally:
            self.end()
            self.held.close()


@pytest.fixture(autouse=True)
def everything_is_small() -> Iterator[None]:
    with (
        patch.multiple(ledger, AT_ONCE=0, IDLE_RECORDS=1, REPLAY_NS=0, SNAPSHOTS_WORTH=0),
        patch.multiple(draft, COPIED_AT_ONCE=300, RECORDS_PER_STEP=3, BYTES_PER_STEP=700),
        patch.multiple(parts, ROWS_PER_PART=4, WATCHES_PER_PART=2, CLIENTS_PER_PART=2, TOUCHED_PER_PART=3),
        patch.object(rows, "ROWS_PER_PART", 3),
    ):
        yield


TestDrafts = Drafts.TestCase
TestDrafts.settings = settings(max_examples=40, stateful_step_count=25, report_multiple_bugs=False)
