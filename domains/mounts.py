"""Mount namespaces kept past the death of their processes, so that taking them apart delays nobody.

A process that dies as the last in its mount namespace unmounts everything in it first, and the kernel waits for every
CPU to have looked away: 2 ms of a death, and tens of them on a busy machine, before anybody is told of it. Whoever
holds the namespace open does that instead, by closing it, when there is time. A process that stands by is born into
one, which shows it the host's mounts, and lives in another.
"""

from __future__ import annotations

import os
import resource
import select
from collections import deque

KEPT_MAX = 256
"""Past it a process takes its namespace apart itself. Each takes three descriptors."""
SHARE = 8
"""Of the descriptors that there may be, one in so many is for a namespace."""


class KeptMounts:
    """Those of the processes that one zygote has made. Where the kernel shows none, nothing is kept."""

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(KEPT_MAX, soft // SHARE)
        self._living: dict[int, list[int]] = {}
        """The namespaces of each process, by its pidfd, the one that it was born into first."""
        self._pidfds: dict[int, int] = {}
        """By pid."""
        self._dead: deque[int] = deque()
        self._deaths = select.epoll()

    def keep(self, pid: int) -> None:
        """The namespace that this process was born into; nothing if it is dead or there are too many."""
        if len(self._living) + len(self._dead) >= self._most:
            return
        try:
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.close(namespace)
            return
        self._living[pidfd], self._pidfds[pid] = [namespace], pidfd
        self._deaths.register(pidfd, select.EPOLLIN)

    def moved(self, pid: int, namespace: int) -> None:
        """A process that was kept lives in this one now, and looks into the first for a while: ours to close."""
        if pid in self._pidfds:
            self._living[self._pidfds[pid]].append(namespace)
        else:
            os.close(namespace)

    def settled(self, pid: int) -> None:
        """It looks into the first no more, or is about to."""
        if pid in self._pidfds and len(self._living[self._pidfds[pid]]) > 1:
            self._dead.append(self._living[self._pidfds[pid]].pop(0))

    def fileno(self) -> int:
        """Readable when somebody has died: then `note_deaths`."""
        return self._deaths.fileno()

    def note_deaths(self) -> None:
        """Take in who has died; what they had stays open."""
        for pidfd, _ in self._deaths.poll(0):
            self._deaths.unregister(pidfd)
            os.close(pidfd)
            self._dead.extend(self._living.pop(pidfd))
            self._pidfds = {pid: other for pid, other in self._pidfds.items() if other != pidfd}

    @property
    def waiting(self) -> bool:
        """Whether `close_one` has something to do."""
        return bool(self._dead)

    def close_one(self) -> None:
        """Take apart what one of the dead has left: this takes milliseconds."""
        os.close(self._dead.popleft())
