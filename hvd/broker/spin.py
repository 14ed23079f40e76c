"""Looking again before sleeping: how long it pays at the moment, for one who waits for many.

The broker's share of what transport/native/spin.hpp does for event channels: to be woken costs more than to carry out a
request, so whoever asks again at once is waited for awake. The budget grows while that would have caught what came, and
is nothing when it would not. Between two looks the CPU is given up, as the one who is waited for may need it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

FIRST_NS, LIMIT_NS = 10_000, 80_000
"""The budget, once something has come in time, and what it may grow to."""
TURN_MAX_NS = 5_000
"""To give up the CPU for longer than that is no short look away: somebody else wants it."""
PAUSE_PER_TURN = 200
"""How many times that is slept instead."""

Ready = list[tuple[int, int]]


class Spin:
    """One waiter's budget."""

    def __init__(
        self, clock_ns: Callable[[], int] = time.monotonic_ns, yield_cpu: Callable[[], None] = os.sched_yield
    ) -> None:
        self._clock_ns = clock_ns
        self._yield_cpu = yield_cpu
        self._not_before_ns = 0
        self.budget_ns = 0

    def wait(self, look: Callable[[float | None], Ready], timeout_s: float | None) -> Ready:
        """What `look` finds, first awake and then asleep, until the time is over. It is told how long it may sleep."""
        began_ns = now_ns = self._clock_ns()
        if began_ns >= self._not_before_ns:
            end_ns = began_ns + self.budget_ns
            while now_ns < end_ns:
                if found := look(0):
                    return found
                now_ns = self._give_way(now_ns)
        found = look(timeout_s)
        self._slept(self._clock_ns() - began_ns)
        return found

    def _give_way(self, before_ns: int) -> int:
        """The time after it."""
        self._yield_cpu()
        after_ns = self._clock_ns()
        if after_ns - before_ns > TURN_MAX_NS:
            self._not_before_ns = after_ns + PAUSE_PER_TURN * (after_ns - before_ns)
        return after_ns

    def _slept(self, waited_ns: int) -> None:
        """To look longer would have caught what came, or it would not."""
        self.budget_ns = min(max(FIRST_NS, 2 * self.budget_ns), LIMIT_NS) if waited_ns <= LIMIT_NS else 0
