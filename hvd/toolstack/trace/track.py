"""One buffer as it is followed from outside: which of its records are whole, which were lost, and which make no sense.

Nothing in a buffer is trusted: its domain has the memory too. Whatever it writes there shows in its own track alone.

While a trace runs its reader takes CPU time from those whose trace it is. So records stay as they were copied, and are
looked at one by one only where some of them are not whole; each becomes an `Event` behind the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


class Events:
    """Whole records, the oldest first, packed as they were copied."""

    def __init__(self) -> None:
        self._packed = bytearray()

    def __len__(self) -> int:
        return len(self._packed) // RECORD.size

    def __iter__(self) -> Iterator[Event]:
        for _, ticks, id_, port, count, kind in RECORD.iter_unpack(bytes(self._packed)):
            yield Event(ticks, _KINDS[kind], port, id_, count)

    def __getitem__(self, index: int) -> Event:
        """IndexError beyond the last one; -1 is the last."""
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        _, ticks, id_, port, count, kind = RECORD.unpack_from(self._packed, number * RECORD.size)
        return Event(ticks, _KINDS[kind], port, id_, count)

    def extend(self, events: Iterable[Event]) -> None:
        for event in events:
            self.add(RECORD.pack(0, event.ticks, event.id, event.port, event.count, event.kind))

    def add(self, whole: bytes) -> None:
        """Records that were found to be whole, and of a kind that there is."""
        self._packed += whole

    def forget(self, count: int) -> None:
        """So many of the oldest."""
        del self._packed[: count * RECORD.size]


@dataclass(slots=True)
class Track:
    """What one incarnation recorded, as far as it was read."""

    domid: DomId
    incarnation: Incarnation
    name: str
    began_ticks: int
    """No record of this trace is older."""
    events: Events = field(default_factory=Events)
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
        copied = slots.untrusted_bytes
        lapped = min(max(slots.untrusted_head_after - TRACE_RECORDS - slots.first, 0), len(copied) // RECORD.size)
        self._lose(lapped)
        first, kept = slots.first + lapped, copied[lapped * RECORD.size :]
        if _all_whole(kept, first, self.began_ticks, now_ticks):
            self.events.add(kept)
            self.next = first + len(kept) // RECORD.size
        else:
            self._take_each(kept, first, now_ticks, None if final else slots.untrusted_head - IN_FLIGHT_MAX)
        self._forget_oldest()

    def _take_each(self, copied: bytes, first: int, now_ticks: int, in_flight: int | None) -> None:
        """`in_flight`: from this record on, one that is not whole may be in the making."""
        self.next = first
        for n in range(first, first + len(copied) // RECORD.size):
            at = (n - first) * RECORD.size
            sequence, ticks, _, _, _, kind = RECORD.unpack_from(copied, at)
            if sequence != n + 1:
                if in_flight is not None and n >= in_flight:
                    break
                self.torn += 1
            elif kind in _KINDS and self.began_ticks <= ticks <= now_ticks:
                self.events.add(copied[at : at + RECORD.size])
            else:
                self.senseless += 1
            self.next = n + 1

    def _lose(self, count: int) -> None:
        if count:
            self.lost += count
            self.gaps.append((self.events[-1].ticks if self.events else self.began_ticks, count))

    def _forget_oldest(self) -> None:
        excess = len(self.events) - KEPT_MAX
        if excess > 0:
            self.lost += excess
            self.gaps = [(self.events[excess].ticks, self.lost)]
            self.events.forget(excess)


def _all_whole(copied: bytes, first: int, began_ticks: int, now_ticks: int) -> bool:
    """Whether every record is whole, of a kind that there is, and of the trace's time: seen column by column."""
    words, words_each = memoryview(copied).cast("Q"), RECORD.size // 8
    numbers, ticks = words[0::words_each].tolist(), words[1::words_each].tolist()
    return (
        bool(numbers)
        and numbers == list(range(first + 1, first + 1 + len(numbers)))
        and began_ticks <= min(ticks)
        and max(ticks) <= now_ticks
        and _KINDS.keys() >= set(copied[_KIND_AT :: RECORD.size])
    )


_KINDS: Final = {int(kind): kind for kind in Kind}
_KIND_AT: Final = RECORD.size - 2
