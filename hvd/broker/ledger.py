"""Keeps the journal, and how long its replay would take: a snapshot takes the place of what was carried out before it.

A full journal would take seconds to replay, and a successor that replays answers nobody. So a snapshot is taken when
nobody has asked for anything for a while, and under load when what has been carried out since the last one took several
times as long as a snapshot takes.

That of a large store is taken in parts, between which everybody is served. What is carried out meanwhile is in the old
journal, which counts until the new one is whole, and behind the snapshot in the new one.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from itertools import chain
from typing import Any

from hvd.broker.held import HeldDescriptors
from hvd.broker.journal import RECORDS_PER_PART, Journal, JournalFull
from hvd.broker.state import State

JOURNAL = "journal"
"""The key under which the machine keeps it."""
REPLAY_NS = 10_000_000
"""So much work is always replayed rather than kept by a snapshot..."""
SNAPSHOTS_WORTH = 5
"""...and so many times what a snapshot takes: then snapshots take a sixth of the broker's time at most."""
AT_ONCE = 200
"""A store of more nodes and watches is taken in parts."""
IDLE_RECORDS = 16
"""Fewer records than these are no reason for a snapshot while nobody asks for anything."""


class Ledger:
    """The journal of the broker that lives."""

    def __init__(self, held: HeldDescriptors) -> None:
        """Takes over what an older broker left; `is_new` if none did."""
        self._held = held
        inherited = held.by_key.get(JOURNAL)
        self.is_new = inherited is None
        self.journal: Journal | None = None if inherited is None else Journal(inherited[0])
        self._records = 0
        self._spent_ns = 0
        self._worth_ns = REPLAY_NS
        """How much of it is not replayed any more, but kept by a snapshot."""
        self._draft: Generator[Journal | None, None, None] | None = None
        self._since: list[bytes] = []
        """What was carried out since the snapshot that is being taken."""
        self._draft_ns = 0

    def record(self, state: State, command: list[Any], began_ns: int) -> None:
        """This command, begun at that time, has been applied: it counts when this returns."""
        assert self.journal is not None
        self._records += 1
        self._spent_ns += time.monotonic_ns() - began_ns
        record = state.record(command)
        drafting = self._draft is not None
        if self._spent_ns > self._worth_ns and not drafting and self._begin(state):
            return
        try:
            self.journal.append(record)
        except JournalFull:
            self.take_snapshot(state)
            return
        if drafting:
            self._since.append(record)

    def tidy(self, state: State) -> None:
        """Nobody asks for anything: a good moment for a snapshot."""
        if self._records >= IDLE_RECORDS and not self.is_drafting:
            self._begin(state)

    @property
    def is_drafting(self) -> bool:
        """Whether a snapshot is being taken: `go_on` with it."""
        return self._draft is not None

    def _begin(self, state: State) -> bool:
        """A snapshot of the state as it is now; whether it has been taken. That of a large store is only begun.

        And not before all that is under way in it is settled.
        """
        store = state.hypervisor.store
        if store.has_unsettled:
            return False
        if store.nodes_and_watches() <= AT_ONCE:
            self.take_snapshot(state)
            return True
        began_ns = time.monotonic_ns()
        tables, parts = state.begin_snapshot()
        self._since = []
        self._draft = Journal.of(chain((tables,), parts), self._taken)
        self._records = self._spent_ns = 0
        self._draft_ns = time.monotonic_ns() - began_ns
        return False

    def _taken(self) -> list[bytes]:
        some = self._since[:RECORDS_PER_PART]
        del self._since[: len(some)]
        return some

    def go_on(self) -> None:
        """By one part; behind the last, the new journal takes the place of the old."""
        assert self._draft is not None
        began_ns = time.monotonic_ns()
        journal = next(self._draft)
        self._draft_ns += time.monotonic_ns() - began_ns
        if journal is not None:
            self._draft, self._since = None, []
            self._has_taken(self._draft_ns)
            self._replace(journal)

    def drop_draft(self) -> None:
        """Nothing if none is being taken."""
        if self._draft is not None:
            self._draft.close()
        self._draft, self._since = None, []

    def take_snapshot(self, state: State) -> None:
        """A new journal in the old one's place; the machine's copy is swapped in one message."""
        began_ns = time.monotonic_ns()
        self.drop_draft()
        self._replace(Journal.create(state.snapshot()))
        self._records = self._spent_ns = 0
        self._has_taken(time.monotonic_ns() - began_ns)

    def _has_taken(self, snapshot_ns: int) -> None:
        self._worth_ns = max(REPLAY_NS, SNAPSHOTS_WORTH * snapshot_ns)

    def _replace(self, journal: Journal) -> None:
        self._held.hold(JOURNAL, [journal.descriptor])
        if self.journal is not None:
            self.journal.close()
        self.journal = journal

    def open_intent(self, session: str, sequence: int) -> None:
        """This hypercall is being carried out."""
        assert self.journal is not None
        self.journal.open_intent(session, sequence)

    def close_intent(self) -> None:
        assert self.journal is not None
        self.journal.close_intent()
