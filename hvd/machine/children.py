"""The processes the machine started and how each of them ended."""

from __future__ import annotations

import os
import select
import signal
import time
from math import ceil

from hvd.transport.process import parent_of
from hvd.transport.records import dataclass, field

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


class Children:
    """All of them by pidfd, watched by an epoll set for their ends."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._by_pidfd: dict[int, Child] = {}

    def add(self, child: Child) -> None:
        self._by_pidfd[child.pidfd] = child
        self._epoll.register(child.pidfd, select.EPOLLIN)

    def remove(self, child: Child) -> None:
        """It has been reaped."""
        del self._by_pidfd[child.pidfd]
        self._epoll.unregister(child.pidfd)
        os.close(child.pidfd)

    def get(self, pidfd: int) -> Child | None:
        return self._by_pidfd.get(pidfd)

    def of(self, role: str) -> list[Child]:
        return [child for child in self._by_pidfd.values() if child.role == role]

    def domain(self, domid: int, incarnation: int) -> Child | None:
        return next((c for c in self.of("domain") if (c.domid, c.incarnation) == (domid, incarnation)), None)

    def signal(self, role: str, number: int) -> None:
        """All who have this role."""
        for child in self.of(role):
            child.signal(number)

    def end_strangers(self) -> None:
        """Kill those that are none of these: domains that a zygote forked and did not live to report."""
        for pid in child_pids() - {child.pid for child in self._by_pidfd.values()}:
            self.end_stray(pid)

    def end_stray(self, pid: int) -> None:
        """Kill one of them, and wait for its end as for any other's."""
        stray = Child("stray", pid)
        self.add(stray)
        stray.signal(signal.SIGKILL)

    def kill_all(self, until: float) -> None:
        """SIGKILL every one, and wait until it is gone or the monotonic clock has reached `until`."""
        poll = select.poll()
        for child in self._by_pidfd.values():
            child.signal(signal.SIGKILL)
            poll.register(child.pidfd, select.POLLIN)
        while self._by_pidfd and (left := until - time.monotonic()) > 0:
            for pidfd, _ in poll.poll(ceil(left * 1000)):
                child = self._by_pidfd[pidfd]
                child.reap()
                poll.unregister(pidfd)
                self.remove(child)


def child_pids() -> set[int]:
    """The pids of all our children, dead ones that nobody has reaped too."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {pid for pid in pids if parent_of(pid) == os.getpid()}


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
