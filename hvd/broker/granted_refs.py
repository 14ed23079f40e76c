"""Which extent each granted ref of a domain is of, by stretches: it may grant 32,768, mostly one behind the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from hvd.transport.ids import GrantRef

if TYPE_CHECKING:
    from hvd.broker.grant_tables import Extent


class GrantedRefs:
    """As a dictionary is read. A stretch is as long as can be: consecutive refs of one extent, whenever granted.

    A dictionary's entry takes 96 bytes, a stretch three times that.
    """

    __slots__ = ("_count", "_ends", "_extents", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        """The first ref that is not of the stretch any more."""
        self._extents: list[Extent] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[GrantRef]:
        return map(GrantRef, chain.from_iterable(map(range, self._starts, self._ends)))

    def __contains__(self, ref: GrantRef) -> bool:
        return self.get(ref) is not None

    def __getitem__(self, ref: GrantRef) -> Extent:
        found = self.get(ref)
        if found is None:
            raise KeyError(ref)
        return found

    def get(self, ref: GrantRef) -> Extent | None:
        """The extent that a ref is of; None if it is not granted."""
        at = bisect_right(self._starts, ref) - 1
        return self._extents[at] if at >= 0 and ref < self._ends[at] else None

    def add(self, ref: GrantRef, count: int, extent: Extent) -> None:
        """Consecutive refs, none of which is granted."""
        at = bisect_right(self._starts, ref)
        first, last, start, end = at, at, int(ref), ref + count
        if at > 0 and self._ends[at - 1] == start and self._extents[at - 1] is extent:
            first, start = at - 1, self._starts[at - 1]
        if at < len(self._starts) and self._starts[at] == end and self._extents[at] is extent:
            last, end = at + 1, self._ends[at]
        self._put(first, last, [(start, end)], extent)
        self._count += count

    def remove(self, ref: GrantRef, count: int) -> None:
        """Consecutive refs of one extent, all of which are granted."""
        at = bisect_right(self._starts, ref) - 1
        parts = [(self._starts[at], int(ref)), (ref + count, self._ends[at])]
        self._put(at, at + 1, [(start, end) for start, end in parts if start < end], self._extents[at])
        self._count -= count

    def _put(self, first: int, last: int, stretches: list[tuple[int, int]], extent: Extent) -> None:
        """In the place of those from `first` to before `last`."""
        self._starts[first:last] = [start for start, _ in stretches]
        self._ends[first:last] = [end for _, end in stretches]
        self._extents[first:last] = [extent] * len(stretches)
