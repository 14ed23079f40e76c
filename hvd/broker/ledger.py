"""Keeps the journal, and how long its replay would take: a snapshot takes the place of what was carried out before it.

A full journal would take seconds to replay, and a successor that replays answers nobody. So a snapshot is taken when
nobody has asked for anything for a while, and under load when what has been carried out since the last one took several
times as long as a snapshot takes.
"""

from __future__ import annotations

import gc
import time
from typing import Any

from hvd.broker.held import HeldDescriptors
from hvd.broker.journal import Journal, JournalFull
from hvd.broker.state import State

JOURNAL = "journal"
"""The key under which the machine keeps it."""
REPLAY_NS = 10_000_000
"""So much work is always replayed rather than kept by a snapshot..."""
SNAPSHOTS_WORTH = 5
"""...and so many times what a snapshot takes: then snapshots take a sixth of the broker's time at most."""
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
        self._spent_ns = self._snapshot_ns = 0

    def record(self, state: State, command: list[Any], began_ns: int) -> None:
        """This command, begun at that time, has been applied: it counts when this returns."""
        assert self.journal is not None
        self._records += 1
        self._spent_ns += time.monotonic_ns() - began_ns
        record = state.record(command)
        if self._spent_ns > max(REPLAY_NS, SNAPSHOTS_WORTH * self._snapshot_ns):
            self.take_snapshot(state)
            return
        try:
            self.journal.append(record)
        except JournalFull:
            self.take_snapshot(state)

    def tidy(self, state: State) -> None:
        """Nobody asks for anything: a good moment for a snapshot."""
        if self._records >= IDLE_RECORDS:
            self.take_snapshot(state)

    def take_snapshot(self, state: State) -> None:
        """A new journal in the old one's place; the machine's copy is swapped in one message."""
        began_ns = time.monotonic_ns()
        gc.collect()
        journal = Journal.create(state.snapshot())
        self._held.hold(JOURNAL, [journal.descriptor])
        if self.journal is not None:
            self.journal.close()
        self.journal = journal
        self._records = self._spent_ns = 0
        self._snapshot_ns = time.monotonic_ns() - began_ns

    def open_intent(self, session: str, sequence: int) -> None:
        """This hypercall is being carried out."""
        assert self.journal is not None
        self.journal.open_intent(session, sequence)

    def close_intent(self) -> None:
        assert self.journal is not None
        self.journal.close_intent()
