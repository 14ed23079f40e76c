"""Keeps the journal, and how long its replay would take: a snapshot takes the place of what was carried out before it.

A full journal would take seconds to replay, and a successor that replays answers nobody. So a snapshot is taken when
nobody has asked for anything for a while, and under load when what has been carried out since the last one took several
times as long as a snapshot takes.

That of a large store is taken in parts, between which everybody is served (draft.py). What is carried out meanwhile is
in the old journal, which counts until the new one is whole, and behind the snapshot in the new one.

A host may refuse one, for want of memory, or of a file's size that a limit allows. The old journal goes on then, gets
room where it needs some, and another snapshot is tried later. Where there is no room either, what would change anything
is refused, ahead of what cannot be: deaths, and time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hvd.broker.draft import Draft, Written
from hvd.broker.held import HeldDescriptors
from hvd.broker.journal import Journal, JournalFull
from hvd.broker.retries import Retry
from hvd.broker.state import State
from hvd.transport.limits import JOURNAL_BYTES_SPARED

LEFT_BY_ANYBODY, LEFT_BY_LIFE, LEFT_BY_HOST, LEFT_AT_LAST = (JOURNAL_BYTES_SPARED * n // 4 for n in (4, 3, 2, 1))
"""Bytes that a command leaves for what cannot be refused, deaths and time, or it is refused: anybody's; what a domain's
own life hangs on; the toolstack's and the host's programs'; and what follows from a death or brings one about, domain
0's part in each first of all: the machine ends with it. Nobody uses up what is left for those behind him here."""
JOURNAL = "journal"
"""The key under which the machine keeps it."""
REPLAY_NS = 10_000_000
"""So much work is always replayed rather than kept by a snapshot..."""
SNAPSHOTS_WORTH = 5
"""...and so many times what a snapshot takes: then snapshots take a sixth of the broker's time at most."""
AT_ONCE = 200
"""A store of more nodes and watches is taken in parts."""
ROOMS_MAX = 8
"""So often a journal that is full is made larger, with a snapshot in parts on its way. Then one is taken at once: not
beside 100,000 nodes, whose snapshot has come to its end by then, whatever is carried out."""
IDLE_RECORDS = 16
"""Fewer records than these are no reason for a snapshot while nobody asks for anything."""
AGAIN_LEAST_NS, AGAIN_MOST_NS = 1_000_000_000, 32_000_000_000
"""Between two tries of what the host has refused: one may take as long as a whole snapshot."""


class Ledger:
    """The journal of the broker that lives."""

    def __init__(self, held: HeldDescriptors, tell: Callable[[str], None]) -> None:
        """Takes over what an older broker left; `is_new` if none did. `tell` hears what the host has refused."""
        self._held = held
        self._tell = tell
        inherited = held.by_key.get(JOURNAL)
        self.is_new = inherited is None
        self.journal: Journal | None = None if inherited is None else Journal(inherited[0])
        self._records = 0
        self._spent_ns = 0
        self._worth_ns = REPLAY_NS
        """How much of it is not replayed any more, but kept by a snapshot."""
        self._draft: Draft | None = None
        self._written: Written | None = None
        """What of the last snapshot the next one may copy, if that was of a large store."""
        self._rooms = 0
        """How often this journal was made larger."""
        self._drafted = 0, 0
        """Records, and what they took, behind the last snapshot when the draft was begun that is under way."""
        self._snapshots, self._rooms_again = Retry(AGAIN_LEAST_NS, AGAIN_MOST_NS), Retry(AGAIN_LEAST_NS, AGAIN_MOST_NS)
        """When each may be tried."""
        self._why_not = ""
        """What the host has said last when it refused one."""

    def record(self, state: State, command: list[Any], began_ns: int) -> None:
        """This command, begun at that time, has been applied: it counts when this returns."""
        assert self.journal is not None
        self._records += 1
        self._spent_ns += time.monotonic_ns() - began_ns
        record, draft = state.record(command), self._draft
        is_due = self._rooms > 0 or self._spent_ns > self._worth_ns
        if is_due and draft is None and self._begin(state):
            return
        try:
            self.journal.append(record)
        except JournalFull:
            if self._is_renewed(state):
                return
            self.journal.append(record)
        if draft is not None:
            draft.note(record)
            if draft.is_behind:  # a turn of the loop may bring much more than a step takes
                self.go_on()

    def _is_renewed(self, state: State) -> bool:
        """The journal is full: whether a snapshot has been taken. Of a large store it is begun, and there is room.

        JournalFull when the host refuses both, however often: the broker knows of no way to go on.
        """
        if self._draft is None and self._rooms < ROOMS_MAX and self._begin(state):
            return True
        if self._has_got_room():
            return False
        try:
            self.take_snapshot(state)
        except OSError as error:
            raise JournalFull(f"and the host refuses another: {error.strerror}") from error
        return True

    def _has_got_room(self) -> bool:
        """Whether the journal is larger now; not where it is as large as may be, or the host has refused that."""
        assert self.journal is not None
        if self._rooms == ROOMS_MAX:
            return False
        try:
            self.journal.make_room()
        except OSError as error:
            self._why_not = str(error.strerror)
            return False
        self._rooms += 1
        return True

    def has_room(self, state: State, leaves: int) -> bool:
        """Whether another command may be carried out that is to leave so many bytes for those that cannot be put off.

        Room is made, or a snapshot taken, where there is none, as far as the host lets us.
        """
        assert self.journal is not None
        if self.journal.room >= leaves:
            return True
        now_ns = time.monotonic_ns()
        if not self._rooms_again.is_due(now_ns):
            return False
        begun = self._draft is None and self._begin(state)
        is_coming = self._draft is not None and self._rooms < ROOMS_MAX
        if begun or self._has_got_room() or (not is_coming and self._has_taken_one(state)):
            self._rooms_again.granted()
            return True
        wait_s = self._rooms_again.refused(now_ns) / 1e9
        self._tell(f"{self.full} (tried again in {wait_s:g} s)")
        return False

    @property
    def full(self) -> str:
        """Why `has_room` says no, and what to do."""
        return (
            f"the hypervisor cannot note what it does: the host refuses its journal ({self._why_not}). "
            "Free memory, or raise what bounds the broker; until then nothing is changed"
        )

    def has_replayed(self, records: int) -> None:
        """So many lie behind the snapshot that was inherited, and would be replayed by the next broker too."""
        self._records += records

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

        And not before all that is under way in it is settled, which is to be soon.
        """
        store = state.hypervisor.store
        if not self._snapshots.is_due(time.monotonic_ns()):
            return False
        if store.has_unsettled:
            store.come_to_an_end()
            return False
        if store.nodes_and_watches() <= AT_ONCE:
            return self._has_taken_one(state)
        self._draft, self._written = Draft(state, self.journal, self._written), None
        self._drafted = self._records, self._spent_ns
        self._records = self._spent_ns = 0
        return False

    def _has_taken_one(self, state: State) -> bool:
        """A snapshot, at once; not where the host has refused it."""
        try:
            self.take_snapshot(state)
        except OSError as error:
            self._refused(error)
            return False
        return True

    def _refused(self, error: OSError) -> None:
        """The journal that counts goes on to do so, and what is behind its snapshot stays there."""
        self.drop_draft()
        self._why_not = str(error.strerror)
        wait_s = self._snapshots.refused(time.monotonic_ns()) / 1e9
        self._tell(
            f"no snapshot of the journal: the host refuses it: {error.strerror}. A broker that dies is back later for "
            f"it: free memory, or raise what bounds the broker; it is tried again in {wait_s:g} s"
        )

    def go_on(self) -> None:
        """By a step, or some; behind the last, the new journal takes the place of the old."""
        draft = self._draft
        assert draft is not None
        try:
            journal = draft.go_on()
            if journal is None:
                return
            self._replace(journal)
        except OSError as error:
            self._refused(error)
            return
        self._draft, self._written = None, draft.written
        if draft.is_whole:
            self._has_taken(draft.took_ns)

    def drop_draft(self) -> None:
        """Nothing if none is being taken."""
        if self._draft is not None:
            self._draft.drop()
            self._records, self._spent_ns = self._records + self._drafted[0], self._spent_ns + self._drafted[1]
        self._draft = None

    def take_snapshot(self, state: State) -> None:
        """A new journal in the old one's place; the machine's copy is swapped in one message."""
        began_ns = time.monotonic_ns()
        self.drop_draft()
        if self._written is not None:
            state.hypervisor.store.forget_packing(self._written.packing)
            self._written = None
        self._replace(Journal.create(state.snapshot()))
        self._records = self._spent_ns = 0
        self._has_taken(time.monotonic_ns() - began_ns)

    def _has_taken(self, snapshot_ns: int) -> None:
        self._worth_ns = max(REPLAY_NS, SNAPSHOTS_WORTH * snapshot_ns)

    def _replace(self, journal: Journal) -> None:
        """OSError, and the old one counts: the machine could not be sent it."""
        try:
            self._held.hold(JOURNAL, [journal.descriptor])
        except OSError:
            journal.close()
            raise
        if self.journal is not None:
            self.journal.close()
        self.journal, self._rooms = journal, 0
        self._snapshots.granted()

    def open_intent(self, session: str, sequence: int) -> None:
        """This hypercall is being carried out."""
        assert self.journal is not None
        self.journal.open_intent(session, sequence)

    def close_intent(self) -> None:
        assert self.journal is not None
        self.journal.close_intent()
