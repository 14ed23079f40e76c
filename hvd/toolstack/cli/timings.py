"""How long a start took: milliseconds from the moment this process was started to each step."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from hvd.transport.run_dir import start_time

if TYPE_CHECKING:
    from hvd.toolstack.cluster import LifecycleEvent


class Timings:
    """Steps in the order they happened. The kernel tells when a process was started to a clock tick (10 ms)."""

    def __init__(self) -> None:
        ticks = start_time(os.getpid()) or 0
        self._started_s = ticks / os.sysconf("SC_CLK_TCK")
        self._steps: dict[str, float] = {}
        self.mark("command line read")

    def mark(self, step: str) -> None:
        """This step has just been done."""
        self._steps[step] = (time.clock_gettime(time.CLOCK_BOOTTIME) - self._started_s) * 1000

    def hear(self, event: LifecycleEvent) -> None:
        """dom0 says that it is ready: its program's first line has run by then, and nobody outside can tell more."""
        if event.domid == 0 and event.event == "ready":
            age_ms = (time.time_ns() - event.at_ns) / 1e6
            self._steps["dom0's first line"] = (
                time.clock_gettime(time.CLOCK_BOOTTIME) - self._started_s
            ) * 1000 - age_ms

    def as_dict(self) -> dict[str, float]:
        """Milliseconds by step."""
        return {step: round(at, 1) for step, at in self._steps.items()}

    def lines(self) -> list[str]:
        """A line a step."""
        return [f"{at:8.1f} ms  {step}" for step, at in self._steps.items()]
