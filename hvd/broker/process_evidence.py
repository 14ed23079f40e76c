"""What the kernel says of a domain's process: read from /proc when it has not taken its heartbeat, and only then.

The broker reads it itself: the machine decides nothing, and nothing else is needed of it. `stat` is kept open, so that
it names this process and no other that gets its number. All that decides a hang is readable by anybody, unless /proc is
mounted with `hidepid`; `wchan` is not for who may not trace the domain, and then all sleep counts as a nap.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from hvd.broker.heartbeats import Doing

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024
STAT_BYTES_MAX = 1024
"""52 numbers and a name of 15 bytes."""
STATES = {"R": Doing.RUNNABLE, "T": Doing.STOPPED, "t": Doing.TRACED, "D": Doing.IN_KERNEL, "S": Doing.ASLEEP}
HIDDEN = ("", "0")
"""What `wchan` says to those who may not know."""
TRACER = re.compile(rb"^TracerPid:\t0$", re.MULTILINE)


class Process:
    """One process, looked at again and again."""

    def __init__(self, pid: int) -> None:
        """OSError when it cannot be seen."""
        self._root = f"/proc/{pid}"
        self._tasks = f"/proc/{pid}/task"
        self._main = f"/proc/{pid}/task/{pid}"
        self._stat = os.open(f"{self._root}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._stat)

    def look(self) -> tuple[Doing, int, int]:
        """(what it does, its CPU time in ns, a number that changes when a thread of it has run).

        The last is 0 for one that is runnable: then nothing but `stat` is read.
        """
        try:
            doing, cpu_ns = _parse(os.pread(self._stat, STAT_BYTES_MAX, 0))
            if doing in (Doing.RUNNABLE, Doing.UNKNOWN):
                return doing, cpu_ns, 0
            if not TRACER.search(_read(f"{self._root}/status")):
                return Doing.TRACED, cpu_ns, 0
            doing, steps = self._look_at_threads(doing)
        except (OSError, ValueError, IndexError):
            return Doing.UNKNOWN, 0, 0
        if doing is Doing.ASLEEP and self._naps():
            doing = Doing.NAPPING
        return doing, cpu_ns, steps

    def _look_at_threads(self, main: Doing) -> tuple[Doing, int]:
        """What the main thread does, unless another is runnable; and what all of them have run."""
        doing, steps = main, 0
        for tid in os.listdir(self._tasks):
            thread = f"{self._tasks}/{tid}"
            with suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
                state, cpu_ns = _parse(_read(f"{thread}/stat"))
                steps += _nanoseconds_run(thread, cpu_ns)
                if state is Doing.RUNNABLE:
                    doing = state
        return doing, steps

    def _naps(self) -> bool:
        waits_in = _text(f"{self._main}/wchan")
        return waits_in in HIDDEN or "nanosleep" in waits_in or bool(_text(f"{self._main}/children"))


def private_resident_kib(pid: int) -> int:
    """What a process has in memory of its own, what it shares since its fork included; 0 if it cannot be seen."""
    try:
        _, resident, shared = _read(f"/proc/{pid}/statm").split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * PAGE_KIB


def _parse(stat: bytes) -> tuple[Doing, int]:
    """(state, CPU time of user and system in ns) of a `stat` line; its second field is a name with anything in it."""
    fields = stat.rpartition(b") ")[2].split()
    return STATES.get(fields[0].decode(), Doing.UNKNOWN), (int(fields[11]) + int(fields[12])) * TICK_NS


def _nanoseconds_run(thread: str, otherwise_ns: int) -> int:
    """From the scheduler's own account; where the kernel keeps none, from its clock ticks."""
    text = _text(f"{thread}/schedstat")
    return int(text.split()[0]) if text else otherwise_ns


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _text(path: str) -> str:
    """A file's text without white space around it; empty where there is no such file, or it is not for us."""
    try:
        return _read(path).decode(errors="replace").strip()
    except OSError:
        return ""
