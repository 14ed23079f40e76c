"""A journal of a large store in the making, a step at a time: a snapshot in parts, and what is carried out meanwhile.

What the last snapshot says and has not changed is copied as it stands in the journal that counts: rows of the trees,
since no node ever changes and a new version has few of its own, and watches, while nobody sets or drops one. So a
snapshot takes as long as what has changed, and a copy of some megabytes. Rows of nodes that are gone are copied too,
until they are a third of all: then all rows are made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from hvd.broker.journal import Journal, JournalWriter, Stretch
from hvd.broker.rows import TableRows
from hvd.broker.state import State
from hvd.broker.store.packing import Packing
from hvd.broker.store.parts import ROWS_PER_PART, Part
from hvd.broker.store.upkeep import Upkeep
from hvd.transport.records import dataclass

COPIED_AT_ONCE = 1 << 18
"""Bytes: about a tenth of a millisecond."""
RECORDS_PER_STEP = 500
"""More than a turn of the broker's loop brings, so that it comes to an end."""
BYTES_PER_STEP, STEPS_MAX = 1 << 13, 2
"""Whoever has so much carried out meanwhile has another step done, up to a millisecond's at once: so it comes to an end
before the journal that counts has become much larger."""
NOTHING = Stretch(0, 0)


@dataclass(slots=True)
class Written:
    """Of the snapshot in a journal, what the next one may copy."""

    packing: Packing
    """Of whatever there are rows of."""
    rows_at_first: int
    """How many there were when all of them were made."""
    rows: Stretch = NOTHING
    watches: Stretch = NOTHING
    watches_version: int = -1

    def is_worth_it(self, nodes: int) -> bool:
        """Whether most of these rows are still of nodes that there are; there are two a node at most."""
        rows = len(self.packing.position)
        return rows <= self.rows_at_first * 3 // 2 + ROWS_PER_PART and nodes * 4 >= self.rows_at_first


class Draft:
    """One journal in the making, of the state as it is now; `last` is what the journal that counts has to be copied."""

    def __init__(self, state: State, journal: Journal | None, last: Written | None) -> None:
        began_ns = time.monotonic_ns()
        self._store: Upkeep = state.hypervisor.store
        if last is not None and not last.is_worth_it(self._store.nodes()):
            self._store.forget_packing(last.packing)
            last = None
        self.is_whole = last is None
        """All rows are made for it."""
        self._journal, self._last = journal, last or Written(Packing(), 0)
        self._version = self._store.watches_version()
        self._since: list[bytes] = []
        self._since_bytes = 0
        """Since the last step."""
        self._taken_at_once = COPIED_AT_ONCE
        same = self._last.watches_version == self._version
        tables, parts = state.begin_snapshot(self._last.packing, watches=not same)
        self._steps = self._write(state.packed_part, tables, parts, copy_watches=same)
        self.written: Written | None = None
        """Behind the last step."""
        self.took_ns = time.monotonic_ns() - began_ns

    def note(self, record: bytes) -> None:
        """It has been carried out, and is behind what the draft is of."""
        self._since.append(record)
        self._since_bytes += len(record)

    @property
    def is_behind(self) -> bool:
        """Whether so much has been carried out since the last step that another is due."""
        return self._since_bytes >= BYTES_PER_STEP

    def go_on(self) -> Journal | None:
        """By a step, or by more where much has been carried out since; the journal when that was the last."""
        began_ns = time.monotonic_ns()
        steps = max(1, min(self._since_bytes // BYTES_PER_STEP, STEPS_MAX))
        self._taken_at_once, self._since_bytes = max(COPIED_AT_ONCE, self._since_bytes), 0
        journal = None
        for _ in range(steps):
            journal = next(self._steps)
            if journal is not None:
                break
        self.took_ns += time.monotonic_ns() - began_ns
        return journal

    def drop(self) -> None:
        """It is given up: what has been made of it is no part of any journal."""
        self._steps.close()
        self._store.forget_packing(self._last.packing)

    def _write(
        self, packed: Callable[[Part | TableRows], bytes], tables: bytes, parts: Iterator[Part | TableRows],
        *, copy_watches: bool,
    ) -> Generator[Journal | None, None, None]:  # fmt: skip
        writer, last = JournalWriter(), self._last
        try:
            writer.put([tables])
            watches = yield from self._copy(writer, last.watches if copy_watches else NOTHING)
            rows = yield from self._copy(writer, last.rows)
            for part in parts:
                start = writer.end
                writer.put([packed(part)])
                if isinstance(part, Part) and part.rows:
                    rows = _with(rows, Stretch(start, writer.end))
                elif isinstance(part, Part) and part.watches:
                    watches = _with(watches, Stretch(start, writer.end))
                yield None
            writer.put(self._taken())
            while self._since:
                yield None
                writer.put(self._taken())
            at_first = len(last.packing.position) if self.is_whole else last.rows_at_first
            self.written = Written(last.packing, at_first, rows, watches, self._version)
            yield writer.finished()
        finally:
            writer.close()

    def _copy(self, writer: JournalWriter, stretch: Stretch) -> Generator[None, None, Stretch]:
        """Where it stands in the new journal."""
        start = writer.end
        for at in range(stretch.start, stretch.end, COPIED_AT_ONCE):
            assert self._journal is not None
            writer.copy(self._journal, Stretch(at, min(at + COPIED_AT_ONCE, stretch.end)))
            yield None
        return Stretch(start, writer.end)

    def _taken(self) -> list[bytes]:
        """Some of what was carried out, and no less than has been since the last turn: so that it comes to an end."""
        count = size = 0
        for record in self._since[:RECORDS_PER_STEP]:
            size += len(record)
            if count and size > self._taken_at_once:
                break
            count += 1
        some = self._since[:count]
        del self._since[:count]
        return some


def _with(stretch: Stretch, further: Stretch) -> Stretch:
    """Both, where one follows the other; else the first was empty."""
    return Stretch(stretch.start if stretch.end == further.start else further.start, further.end)
