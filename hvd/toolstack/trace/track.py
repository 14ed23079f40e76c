"""One buffer as it is followed from outside: which of its records are whole, which were lost, and which make no sense.

Nothing in a buffer is trusted: its domain has the memory too. Whatever it writes there shows in its own track alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TRACE_RECORDS
from hvd.transport.trace import RECORD, Kind, Slots

IN_FLIGHT_MAX: Final = 64
"""Records behind the head that may still be in the making: threads and forks of a domain that write at a time."""
JUMP_MAX: Final = 1 << 40
"""Records that no domain begins between two looks: a head that far on was scribbled."""
KEPT_MAX: Final = 131_072
"""Records of one track that a trace keeps; the oldest go."""


@dataclass(frozen=True, slots=True)
class Event:
    """A record that was whole."""

    ticks: int
    kind: Kind
    port: int
    id: int
    count: int


@dataclass(slots=True)
class Track:
    """What one incarnation recorded, as far as it was read."""

    domid: DomId
    incarnation: Incarnation
    name: str
    began_ticks: int
    """No record of this trace is older."""
    events: list[Event] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """(ticks, how many were lost) where records are missing."""
    lost: int = 0
    """Overwritten before they were read, or beyond what a trace keeps."""
    torn: int = 0
    """Begun and never finished: their writer died, or somebody wrote over them."""
    senseless: int = 0
    """Whole, and of no kind that there is, or of another time: the domain scribbled over its buffer."""
    head_jumped: bool = False
    """Its count of what was begun went back, or where no count gets."""
    next: int = 0
    """The number of the record to be read next."""

    @property
    def spoiled(self) -> bool:
        """Whether the domain wrote what no domain of ours writes."""
        return self.head_jumped or self.senseless > 0 or self.torn > IN_FLIGHT_MAX + len(self.events) // 100

    def first_wanted(self, untrusted_head: int, *, final: bool) -> int | None:
        """Which record to read from; None: there is nothing new. What cannot be read in time any more is lost.

        `final`: its writer has stopped, and nothing is overwritten meanwhile.
        """
        if not self.next <= untrusted_head <= self.next + JUMP_MAX:
            self.head_jumped = True
            self.next = min(untrusted_head, JUMP_MAX)
            return None
        oldest = untrusted_head - (TRACE_RECORDS if final else TRACE_RECORDS // 2)
        if self.next < oldest:
            self._lose(oldest - self.next)
            self.next = oldest
        return self.next if self.next < untrusted_head else None

    def take(self, slots: Slots, now_ticks: int, *, final: bool) -> None:
        """Take in what was copied. Records that are still in the making are left for the next time."""
        lapped = slots.untrusted_head_after - TRACE_RECORDS
        lost = 0
        for n, (sequence, ticks, id_, port, count, kind) in enumerate(
            RECORD.iter_unpack(slots.untrusted_bytes), slots.first
        ):
            if n < lapped:
                lost += 1
            elif sequence != n + 1:
                if not final and n >= slots.untrusted_head - IN_FLIGHT_MAX:
                    break
                self.torn += 1
            elif kind in _KINDS and self.began_ticks <= ticks <= now_ticks:
                self._lose(lost)
                lost = 0
                self.events.append(Event(ticks, _KINDS[kind], port, id_, count))
            else:
                self.senseless += 1
            self.next = n + 1
        self._lose(lost)
        self._forget_oldest()

    def _lose(self, count: int) -> None:
        if count:
            self.lost += count
            self.gaps.append((self.events[-1].ticks if self.events else self.began_ticks, count))

    def _forget_oldest(self) -> None:
        excess = len(self.events) - KEPT_MAX
        if excess > 0:
            self.lost += excess
            self.gaps = [(self.events[excess].ticks, self.lost)]
            del self.events[:excess]


_KINDS: Final = {int(kind): kind for kind in Kind}
