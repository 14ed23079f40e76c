"""Follows the history of one workload while it is written: what is open, what was answered, and how."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from hvd.toolstack.faults.id_runs import IdRuns
from hvd.transport.history import INCARNATION_SHIFT, RECORD_SIZE, Event, Kind, Phase, Record, event_of, records

BREACHES = ("lost", "torn", "misplaced", "duplicated", "unexpected", "wrong")
"""What a verdict counts and nothing may be."""
EXAMPLES_MAX = 10
PART_RECORDS = 1 << 14
"""So many are read at a time: how long a history is, is not what it costs in memory."""
PHASES, KINDS = frozenset(map(int, Phase)), frozenset(map(int, Kind))
INVOKED, OK, FAILED = int(Phase.INVOKED), int(Phase.OK), int(Phase.FAILED)
"""As records have them, millions of times: to look up a member of an enum costs several comparisons."""
NOT_OK = 0


@dataclass(slots=True)
class Verdict:
    """What a check found. From `lost` to `unexpected` all must be 0; `failed` and `unknown` promised nothing.

    A checker says what the words mean for its workload.
    """

    invoked: int = 0
    operations: int = 0
    """Answered, one way or the other: `invoked` less those whose fate is unknown."""
    ok: int = 0
    failed: int = 0
    unknown: int = 0
    """Invoked and never answered, or not yet: never counted as ok."""
    orphaned: int = 0
    """Those among `unknown` whose domain died before the answer; all others should be answered one day."""
    compared: int = 0
    lost: int = 0
    """Answered with ok, and not there."""
    torn: int = 0
    """There in part."""
    misplaced: int = 0
    """There whole, and somewhere else than it belongs."""
    duplicated: int = 0
    """Done or answered more than once."""
    unexpected: int = 0
    """There, and nobody asked for it; an answer to what was never asked."""
    wrong: int = 0
    """A read that brought something else than was written."""
    examples: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Nothing that was acknowledged is missing, and nothing is there that should not be."""
        return not self.breaches

    @property
    def breaches(self) -> int:
        """How often that is not so."""
        return sum(getattr(self, name) for name in BREACHES)

    @classmethod
    def total(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """All of them together."""
        total = cls()
        for verdict in verdicts:
            for name in cls.__slots__:
                setattr(total, name, getattr(total, name) + getattr(verdict, name))
        return total

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self) | {"intact": self.intact}

    def lines(self, what: str = "checker") -> list[str]:
        """The same for people."""
        asked = f"{self.ok} ok, {self.failed} failed, {self.unknown} unknown"
        found = ", ".join(f"{getattr(self, name)} {name}" for name in BREACHES)
        text = f"{what}: {self.invoked} operations ({asked}), {self.compared} places compared: {found}"
        return [text, *(f"  {example}" for example in self.examples)]

    def note(self, text: str) -> None:
        """Keep it as an example, if there are not enough."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(text)


class History:
    """One history file, from its beginning; `follow` takes in what is new and counts it in the verdict.

    It may be millions of operations long: what is kept of one that is answered is two moments.
    """

    def __init__(self, path: str, verdict: Verdict) -> None:
        self._path = path
        self._offset = 0
        self._verdict = verdict
        self._known = IdRuns()
        """Every id that was invoked."""
        self.open: dict[int, int] = {}
        """Id of what was invoked and not answered -> when."""
        self.times_ns = array("Q")
        """When each answer was given, on CLOCK_MONOTONIC."""
        self._invoked_ns = array("Q")
        """For each of them, when its operation was invoked if it is ok, else NOT_OK."""

    @property
    def latencies(self) -> Iterator[tuple[int, int]]:
        """(invoked, answered) of each operation that is ok, in nanoseconds."""
        pairs = zip(self._invoked_ns, self.times_ns, strict=True)
        return ((invoked, answered) for invoked, answered in pairs if invoked != NOT_OK)

    def follow(self) -> list[Event]:
        """The new events that make sense; the others are in the verdict already."""
        return [event_of(record) for part in self.parts() for record in part]

    def parts(self) -> Iterator[list[Record]]:
        """The same as records, some thousands at a time, as far as the file goes when it is asked."""
        with suppress(FileNotFoundError), open(self._path, "rb") as file:
            end = os.fstat(file.fileno()).st_size
            file.seek(self._offset)
            while (size := min((end - self._offset) // RECORD_SIZE, PART_RECORDS) * RECORD_SIZE) > 0:
                self._offset += size
                yield self._sift(file.read(size))

    def _sift(self, data: bytes) -> list[Record]:
        taken = [record for record in records(data) if self._takes(record)]
        incarnation = self._known.last >> INCARNATION_SHIFT
        self._verdict.unknown = len(self.open)
        self._verdict.orphaned = sum(id_ >> INCARNATION_SHIFT < incarnation for id_ in self.open)
        return taken

    def _takes(self, record: Record) -> bool:
        phase, kind, _, id_, _, at_ns, _ = record
        if phase not in PHASES or kind not in KINDS:
            return self._unexpected(f"a record of operation {id_} is of phase {phase} and kind {kind}")
        if phase == INVOKED:
            if not self._known.add(id_):
                return self._unexpected(f"operation {id_} was invoked twice")
            self._verdict.invoked += 1
            self.open[id_] = at_ns
            return True
        invoked_ns = self.open.pop(id_, None)
        if invoked_ns is not None:
            self._count(invoked_ns, record)
            return True
        if id_ not in self._known:
            return self._unexpected(f"operation {id_} was answered and never invoked")
        self._verdict.duplicated += 1
        self._verdict.note(f"operation {id_} was answered twice")
        return False

    def _unexpected(self, what: str) -> bool:
        """So it is not taken."""
        self._verdict.unexpected += 1
        self._verdict.note(what)
        return False

    def _count(self, invoked_ns: int, answer: Record) -> None:
        verdict = self._verdict
        verdict.operations += 1
        phase, kind, _, id_, _, at_ns, _ = answer
        self.times_ns.append(at_ns)
        self._invoked_ns.append(invoked_ns if phase == OK else NOT_OK)
        if phase == OK:
            verdict.ok += 1
        elif phase == FAILED:
            verdict.failed += 1
        else:
            verdict.wrong += 1
            verdict.note(f"operation {id_} ({Kind(kind).name}) was answered wrongly")


class HistoryChecker:
    """Judges a history by itself: each operation answered once and rightly, as far as its program can tell."""

    def __init__(self, acks: str) -> None:
        self.verdict = Verdict()
        self.history = History(acks, self.verdict)

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        for _ in self.history.parts():
            continue

    def check(self) -> Verdict:
        """As of now."""
        self.follow()
        return self.verdict
