"""Mount namespaces kept past the death of their processes, so that taking them apart delays nobody.

A process that dies as the last in its mount namespace unmounts everything in it first, and the kernel waits for every
CPU to have looked away: 2 ms of a death, and tens of them on a busy machine, before anybody is told of it. Whoever
holds the namespace open does that instead, by closing it, when there is time.
"""

from __future__ import annotations

import os
import resource
import select
from collections import deque

KEPT_MAX = 256
"""Past it a process takes its namespace apart itself. Each takes two descriptors."""
SHARE = 8
"""Of the descriptors that there may be, one in so many is for a namespace."""


class KeptMounts:
    """Those of the processes that one zygote has made. Where the kernel shows none, nothing is kept."""

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(KEPT_MAX, soft // SHARE)
        self._living: dict[int, int] = {}
        """The namespace of each process, by its pidfd."""
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
        self._living[pidfd] = namespace
        self._deaths.register(pidfd, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when somebody has died: then `note_deaths`."""
        return self._deaths.fileno()

    def note_deaths(self) -> None:
        """Take in who has died; what they had stays open."""
        for pidfd, _ in self._deaths.poll(0):
            self._deaths.unregister(pidfd)
            os.close(pidfd)
            self._dead.append(self._living.pop(pidfd))

    @property
    def waiting(self) -> bool:
        """Whether `close_one` has something to do."""
        return bool(self._dead)

    def close_one(self) -> None:
        """Take apart what one of the dead has left: this takes milliseconds."""
        os.close(self._dead.popleft())
