"""What the kernel says of a domain's process: whether it runs or sleeps, on which CPU, and what time it has used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

_STATE, _UTIME, _CUTIME_END, _PROCESSOR = 0, 11, 15, 36
"""Places in /proc/PID/stat behind the command's name (proc(5))."""


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """Of one process, the children it has waited for among its time."""

    running: bool = False
    """On a CPU, or ready for one."""
    cpu: int | None = None
    """The CPU it was on last."""
    seconds: float = 0.0
    """User and system time."""


def process_times(pid: int | None) -> ProcessTimes:
    """All zero for a process that is gone, or that we may not see."""
    if pid is None:
        return ProcessTimes()
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return ProcessTimes()
    ticks = sum(map(int, fields[_UTIME:_CUTIME_END]))
    return ProcessTimes(fields[_STATE] == "R", int(fields[_PROCESSOR]), ticks / _ticks_per_second())


@cache
def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
