"""Follows the history of one workload while it is written: what is open, what was answered, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from hvd.transport.history import INCARNATION_SHIFT, RECORD_SIZE, Event, Phase, unpack_all

EXAMPLES_MAX = 10


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
        return not (self.lost or self.torn or self.misplaced or self.duplicated or self.unexpected or self.wrong)

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
        names = ("lost", "torn", "misplaced", "duplicated", "unexpected", "wrong")
        found = ", ".join(f"{getattr(self, name)} {name}" for name in names)
        text = f"{what}: {self.invoked} operations ({asked}), {self.compared} places compared: {found}"
        return [text, *(f"  {example}" for example in self.examples)]

    def note(self, text: str) -> None:
        """Keep it as an example, if there are not enough."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(text)


class History:
    """One history file, from its beginning; `follow` takes in what is new and counts it in the verdict."""

    def __init__(self, path: str, verdict: Verdict) -> None:
        self._path = path
        self._offset = 0
        self._verdict = verdict
        self._answered: set[int] = set()
        self.open: dict[int, Event] = {}
        """Invoked and not answered, by id."""
        self.times_ns: list[int] = []
        """When each answer was given, on CLOCK_MONOTONIC."""
        self.latencies: list[tuple[int, int]] = []
        """(invoked, answered) of each operation that is ok, in nanoseconds."""
        self._incarnation = 0

    def follow(self) -> list[Event]:
        """The new events that make sense; the others are in the verdict already."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        taken = []
        for event in unpack_all(data):
            self._offset += RECORD_SIZE
            if self._takes(event):
                taken.append(event)
        self._verdict.unknown = len(self.open)
        self._verdict.orphaned = sum(id_ >> INCARNATION_SHIFT < self._incarnation for id_ in self.open)
        return taken

    def _takes(self, event: Event) -> bool:
        verdict = self._verdict
        if event.phase is Phase.INVOKED:
            self._incarnation = max(self._incarnation, event.id >> INCARNATION_SHIFT)
            if event.id in self.open or event.id in self._answered:
                verdict.unexpected += 1
                verdict.note(f"operation {event.id} was invoked twice")
                return False
            verdict.invoked += 1
            self.open[event.id] = event
            return True
        invoked = self.open.pop(event.id, None)
        if invoked is None:
            twice = event.id in self._answered
            verdict.duplicated += twice
            verdict.unexpected += not twice
            verdict.note(f"operation {event.id} was answered {'twice' if twice else 'and never invoked'}")
            return False
        self._answered.add(event.id)
        self._count(invoked, event)
        return True

    def _count(self, invoked: Event, answer: Event) -> None:
        verdict = self._verdict
        verdict.operations += 1
        self.times_ns.append(answer.at_ns)
        match answer.phase:
            case Phase.OK:
                verdict.ok += 1
                self.latencies.append((invoked.at_ns, answer.at_ns))
            case Phase.FAILED:
                verdict.failed += 1
            case Phase.WRONG:
                verdict.wrong += 1
                verdict.note(f"operation {answer.id} ({answer.kind.name}) was answered wrongly")


class HistoryChecker:
    """Judges a history by itself: each operation answered once and rightly, as far as its program can tell."""

    def __init__(self, acks: str) -> None:
        self.verdict = Verdict()
        self.history = History(acks, self.verdict)

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        self.history.follow()

    def check(self) -> Verdict:
        """As of now."""
        self.follow()
        return self.verdict
