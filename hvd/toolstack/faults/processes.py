"""What the kernel says of a process from outside, without asking it or the cluster: the witness of most faults."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Watched:
    """One process, by a descriptor that means it and no other of its number. Close it."""

    def __init__(self, pid: int) -> None:
        """ProcessLookupError when it is gone."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def ended(self) -> bool:
        """Whether its last thread is gone."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def state(self) -> str:
        """The letter of /proc/PID/stat: R, S, D, T (stopped), Z; empty when it is gone."""
        fields = self._stat()
        return fields[0] if fields else ""

    def cpu_s(self) -> float:
        """Seconds it has computed, in user mode and in the kernel."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S if fields else 0.0

    def sleeps(self) -> int:
        """How often its first thread has given the processor up by itself."""
        lines = self._read("status").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")), 0)

    def soft_limit(self, name: str) -> str:
        """Of /proc/PID/limits: `Max open files`, ...; empty when it is gone."""
        lines = self._read("limits").splitlines()
        return next((line[len(name) :].split()[0] for line in lines if line.startswith(name)), "")

    def _stat(self) -> list[str]:
        """From the state on: what is before it may hold anything."""
        return self._read("stat").rpartition(")")[2].split()

    def _read(self, name: str) -> str:
        try:
            text = Path(f"/proc/{self.pid}/{name}").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if self.ended() else text

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def threads(pid: int) -> list[str]:
    """The name and state of each thread of a process and the system call that it is in, as far as we may know that."""
    told = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*"), key=lambda task: int(task.name)):
        try:
            name, state = (task / "comm").read_text().strip(), (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # it has gone meanwhile
        call = ""
        with suppress(OSError):
            call = (task / "syscall").read_text().split()[0]
        told.append(f"{name} {state} in system call {call}" if call.isdigit() else f"{name} {state}")
    return told


def child_named(parent: int, name: str) -> int | None:
    """The pid of a child by the name that it gave itself."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        before, _, after = text.rpartition(")")
        if before.partition("(")[2] == name and int(after.split()[1]) == parent:
            return int(entry.name)
    return None
