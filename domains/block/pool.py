"""The granted pages a block frontend moves its data through: runs of consecutive pages, first fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive pages of the pool."""

    first: int
    count: int


class PagePool:
    """Which pages are free. Consecutive pages make one piece of memory, which the backend reads and writes at once."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free: list[Run] = [Run(0, pages)]

    @property
    def free(self) -> int:
        return sum(run.count for run in self._free)

    def take(self, count: int) -> Run | None:
        """A run of so many pages, or None when no free run is as long."""
        for index, run in enumerate(self._free):
            if run.count >= count:
                if run.count == count:
                    del self._free[index]
                else:
                    self._free[index] = Run(run.first + count, run.count - count)
                return Run(run.first, count)
        return None

    def give_back(self, run: Run) -> None:
        """Free a run again; it joins its free neighbours."""
        index = next((i for i, other in enumerate(self._free) if other.first > run.first), len(self._free))
        if index < len(self._free) and run.first + run.count == self._free[index].first:
            run = Run(run.first, run.count + self._free.pop(index).count)
        if index > 0 and self._free[index - 1].first + self._free[index - 1].count == run.first:
            before = self._free[index - 1]
            self._free[index - 1] = Run(before.first, before.count + run.count)
        else:
            self._free.insert(index, run)
