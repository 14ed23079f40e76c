"""The processes the machine started and how each of them ended."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

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

    def reap(self) -> str:
        """Wait for it, close its descriptor, and say in words how it ended."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | WALL)
        os.close(self.pidfd)
        if result is None:
            return "ended"
        return describe_end(result.si_code, result.si_status)


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
