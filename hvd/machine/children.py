"""The processes the machine started and how each of them ended."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass, field
from pathlib import Path

WALL = 0x40000000
"""__WALL: also wait for children made with another exit signal than SIGCHLD."""


@dataclass(slots=True)
class Child:
    """One process: what it is, and a descriptor that becomes readable when its last thread is gone."""

    role: str
    pid: int
    domid: int = -1
    incarnation: int = 0
    pidfd: int = field(init=False)

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to this process and no other, even if its number was given away."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def is_over(self) -> bool:
        """Whether its last thread is gone; while somebody traces it, it cannot be reaped yet."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def reap(self) -> str | None:
        """Say in words how it ended, and take its remains away; None while it lives."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | WALL)
        return None if result is None else describe_end(result.si_code, result.si_status)


def child_pids() -> set[int]:
    """The pids of all our children, dead ones that nobody has reaped too."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry) == os.getpid():
            found.add(int(entry.name))
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return -1  # it has just gone


def describe_end(code: int, status: int) -> str:
    """How a process ended, in words. A status above 128 is a signal that its own handler reported."""
    if code in (os.CLD_KILLED, os.CLD_DUMPED):
        return f"killed by {_signal_name(status)}"
    if status > 128:
        return f"killed by {_signal_name(status - 128)}"
    return f"exited with status {status} without a shutdown hypercall"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
