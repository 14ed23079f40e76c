"""What the kernel says of a domain's processes: whether any runs, on which CPU, and what time they have used."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hvd.transport.descendants import family

_LOOK_S = 0.001
_STATE, _UTIME, _CUTIME_END, _PROCESSOR = 0, 11, 15, 36
"""Places in /proc/PID/stat behind the command's name (proc(5))."""


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """Of a process and all that descend from it, those that were waited for among its time."""

    running: bool = False
    """On a CPU, or ready for one."""
    cpu: int | None = None
    """The CPU that the first was on last."""
    seconds: float = 0.0
    """User and system time."""


def process_times(pid: int | None) -> ProcessTimes:
    """All zero for a process that is gone, or that we may not see."""
    found = [each for member in family(pid) if (each := _of_one(member)) is not None]
    if not found:
        return ProcessTimes()
    return ProcessTimes(any(each.running for each in found), found[0].cpu, sum(each.seconds for each in found))


def stops(pid: int | None, within_s: float) -> bool:
    """Whether it is so within that time that a process runs nothing: a signal or a debugger has stopped all of its
    threads, or it is gone, or we may not see it."""
    until = time.monotonic() + within_s
    while not is_stopped(pid):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_S)
    return True


def is_stopped(pid: int | None) -> bool:
    """The same, now."""
    try:
        return all(_is_stopped(thread / "stat") for thread in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return True


def _is_stopped(stat: Path) -> bool:
    try:
        return stat.read_text("ascii", "replace").rpartition(")")[2].split()[_STATE] in "TtZX"
    except OSError:
        return True


def _of_one(pid: int) -> ProcessTimes | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = sum(map(int, fields[_UTIME:_CUTIME_END]))
    return ProcessTimes(fields[_STATE] == "R", int(fields[_PROCESSOR]), ticks / _ticks_per_second())


@cache
def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
