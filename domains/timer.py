"""What a domain is to do at some time, without asking the hypervisor: a descriptor that is readable then."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable

from hvd.domains.runtime import Runtime
from hvd.transport._native import arm_timer, timer_descriptor

EXPIRATIONS_BYTES = 8


class Timer:
    """Calls things from the domain's `wait`. Its descriptor is made when it is first needed, and kept."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._descriptor = -1
        self._token = 0

    def after(self, nanoseconds: int, act: Callable[[], None]) -> None:
        """Call `act` in so long, not earlier."""
        if self._descriptor < 0:
            self._descriptor = timer_descriptor()
            self._token = self._runtime.watch_fd(self._descriptor, self._ring)
        self._number += 1
        heapq.heappush(self._due, (time.monotonic_ns() + nanoseconds, self._number, act))
        arm_timer(self._descriptor, self._due[0][0])

    def close(self) -> None:
        """Nothing is called any more."""
        if self._descriptor >= 0:
            self._runtime.unwatch_fd(self._token)
            os.close(self._descriptor)
            self._descriptor = -1

    def _ring(self) -> None:
        os.read(self._descriptor, EXPIRATIONS_BYTES)
        now = time.monotonic_ns()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        if self._due:
            arm_timer(self._descriptor, self._due[0][0])
