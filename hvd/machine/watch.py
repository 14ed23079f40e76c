"""Tells a broker or zygote that hangs from one that is only kept waiting: by its pulse, and by what the kernel says.

Silence is counted in looks, not in seconds: a machine that was not scheduled itself, or was stopped, has not looked. A
silent process is not at once a dead one:

    it runs, or would run (R), and had no CPU time to speak of   the host is busy: wait
    it waits for a disk (D), or a debugger holds it (t)          no signal would help, or none is wanted: wait
    it was stopped (T)                                           somebody did that to it: kill it, the next goes on
    anything else                                                it hangs: kill it
"""

from __future__ import annotations

import os
import signal

from hvd.machine.children import Children
from hvd.transport.pulse import Pulse

LOOK_EVERY_S = 1.0
SILENT_MAX = 5
"""Looks in a row that may find no beat."""
BUSY_CPU_S = 1.0
"""CPU time that a silent process must have had before it counts as going round in circles."""
STOPPED = "it was stopped"


class Watch:
    """On one process, from its fork to its death."""

    def __init__(self, pid: int, pulse: Pulse, *, expected: bool) -> None:
        """`expected`: it will beat; else it is watched from its first beat on."""
        self.pulse = pulse
        self._process = f"/proc/{pid}"
        self._beats = 0
        self._watched = expected
        self._silent = 0
        self._cpu_s = 0.0

    @property
    def has_beaten(self) -> bool:
        return self.pulse.beats > 0

    @property
    def is_silent(self) -> bool:
        """Whether the last look found no beat."""
        return self._silent > 0

    def look(self) -> str | None:
        """Once every LOOK_EVERY_S. Why the process is to be killed; None: it is not."""
        beats = self.pulse.beats
        if beats != self._beats or not self._watched:
            self._watched = self._watched or beats > 0
            self._beats, self._silent = beats, 0
            return None
        state, cpu_s = self._look_at_process()
        if self._silent == 0:
            self._cpu_s = cpu_s
        self._silent += 1
        if self._silent < SILENT_MAX:
            return None
        return self._judge(state, cpu_s - self._cpu_s)

    def _judge(self, state: str, cpu_s: float) -> str | None:
        if state in "DtZX" or (state == "R" and cpu_s < BUSY_CPU_S):
            return None
        if state == "T":
            return STOPPED
        doing = f"used {cpu_s:.1f} s of CPU time" if state == "R" else "slept"
        return f"it {doing} and did not come back to its loop for {self._silent} s"

    def _look_at_process(self) -> tuple[str, float]:
        """(its state, CPU time in seconds). One that sleeps may wait for a thread of its own that would run."""
        try:
            state, cpu_s = _of_stat(self._process)
            threads = {_of_stat(f"{self._process}/task/{tid}")[0] for tid in os.listdir(f"{self._process}/task")}
        except OSError:
            return "X", 0.0  # it has gone, or a thread of it has just ended
        return next((busy for busy in "DR" if state == "S" and busy in threads), state), cpu_s


def _of_stat(thread: str) -> tuple[str, float]:
    with open(f"{thread}/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return fields[0].decode(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watches:
    """On the broker and the zygote that there are, by role; whoever hangs is killed, and it is told what for."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._watches: dict[str, Watch] = {}
        self._killed_for: dict[str, str] = {}
        self._next_look = 0.0

    def follow(self, role: str, pid: int, pulse: Pulse) -> None:
        """This process has the role now; it is expected to beat if its predecessor has."""
        before = self._watches.get(role)
        self._watches[role] = Watch(pid, pulse, expected=before is not None and before.has_beaten)
        if before is not None:
            before.pulse.close()

    def deadline(self) -> float:
        """When to `look` again."""
        return self._next_look

    def look(self, now_s: float) -> None:
        """Look at both, if it is time."""
        if now_s < self._next_look:
            return
        self._next_look = now_s + LOOK_EVERY_S
        for role, watch in self._watches.items():
            why = watch.look()
            if why is not None:
                self.kill(role, why)

    def is_silent(self, role: str) -> bool:
        """Whether whoever has this role has not come back to its loop since the look before the last."""
        return role in self._watches and self._watches[role].is_silent

    def kill(self, role: str, why: str) -> None:
        """End whoever has this role for what it did."""
        self._killed_for.setdefault(role, why)
        self._children.signal(role, signal.SIGKILL)

    def describe_end(self, role: str, how: str) -> str:
        """How it ended, and what we killed it for. Who was stopped did nothing wrong: it is told as a kill."""
        why = self._killed_for.pop(role, "")
        if not why:
            return how
        return f"{how}: {why}" if why == STOPPED else f"hung: {why}"

    def forget(self) -> None:
        """In a process that is none of ours to watch any more, or whose machine begins anew."""
        for watch in self._watches.values():
            watch.pulse.close()
        self._watches.clear()
        self._killed_for.clear()
