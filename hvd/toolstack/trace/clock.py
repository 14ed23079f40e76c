"""Ticks of a trace's clock as nanoseconds of CLOCK_MONOTONIC, by two moments at which both were read."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hvd.transport._native import trace_clocks


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on both clocks."""

    ticks: int
    ns: int

    @classmethod
    def now(cls, clock: int) -> Moment:
        return cls(*trace_clocks(clock))


@dataclass(frozen=True, slots=True)
class Timeline:
    """The straight line through two moments."""

    began: Moment
    ended: Moment

    def ns(self, ticks: int) -> int:
        """CLOCK_MONOTONIC at that tick."""
        ticks_apart, ns_apart = self.ended.ticks - self.began.ticks, self.ended.ns - self.began.ns
        if ticks_apart <= 0:
            return self.began.ns
        return self.began.ns + (ticks - self.began.ticks) * ns_apart // ticks_apart


def monotonic_of_wall(wall_ns: int) -> int:
    """When CLOCK_MONOTONIC was what the wall clock says, as the two stand to each other now."""
    return wall_ns - time.time_ns() + time.monotonic_ns()
