"""What the kernel says of a process from outside, without asking it or the cluster: the witness of most faults."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hvd.transport.descendants import family

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
        return _soft_limit(self._read("limits"), name)

    def soft_limits_below(self, name: str) -> dict[int, str]:
        """Of all that descend from it and live, by pid."""
        return self._of_those_below(lambda pid: _soft_limit(_text(pid, "limits"), name))

    def states_below(self) -> dict[int, str]:
        """As `state`, of all that descend from it and live."""
        states = self._of_those_below(lambda pid: _text(pid, "stat").rpartition(")")[2].strip()[:1])
        return {pid: state for pid, state in states.items() if state not in "ZX"}

    def _of_those_below(self, ask: Callable[[int], str]) -> dict[int, str]:
        found = {pid: ask(pid) for pid in family(self.pid)[1:]}
        return {} if self.ended() else {pid: text for pid, text in found.items() if text}

    def _stat(self) -> list[str]:
        """From the state on: what is before it may hold anything."""
        return self._read("stat").rpartition(")")[2].split()

    def _read(self, name: str) -> str:
        text = _text(self.pid, name)
        return "" if self.ended() else text

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _soft_limit(limits: str, name: str) -> str:
    return next((line[len(name) :].split()[0] for line in limits.splitlines() if line.startswith(name)), "")


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
