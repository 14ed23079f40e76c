"""Which ids of a history are taken: kept as runs, so that millions in a row take the room of one."""

from __future__ import annotations

from bisect import bisect_right


class IdRuns:
    """A set of ids that only grows. Each run is from its start to before its end; no two touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, id_: int) -> bool:
        at = bisect_right(self._starts, id_) - 1
        return at >= 0 and id_ < self._ends[at]

    @property
    def last(self) -> int:
        """The largest; -1 when there is none."""
        return self._ends[-1] - 1 if self._ends else -1

    def add(self, id_: int) -> bool:
        """Whether it is new."""
        starts, ends = self._starts, self._ends
        behind = bisect_right(starts, id_)
        before = behind - 1
        if before >= 0 and id_ < ends[before]:
            return False
        touches_next = behind < len(starts) and starts[behind] == id_ + 1
        if before >= 0 and ends[before] == id_:
            ends[before] = ends.pop(behind) if touches_next else id_ + 1
            del starts[behind : behind + touches_next]
        elif touches_next:
            starts[behind] = id_
        else:
            starts.insert(behind, id_)
            ends.insert(behind, id_ + 1)
        return True
