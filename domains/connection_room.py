"""Room for a hypercall connection that may never be made: what libzmq ends a process for if it cannot have it."""

from __future__ import annotations

import mmap
import resource

KEPT = {resource.RLIMIT_NOFILE: 16, resource.RLIMIT_NPROC: 2}
"""Descriptors, of which a client takes nine, and its context's threads."""
MEMORY_BYTES = 20 << 20
"""Their stacks, and what is allocated in them, as RLIMIT_DATA counts: none of it is touched."""


class ConnectionRoom:
    """Kept from the guest's program by its own limits, until the connection is made.

    A program that raises them has itself to blame. Where threads are not limited by user, others can take them.
    """

    def __init__(self) -> None:
        """OSError when there is no memory left."""
        self._memory = mmap.mmap(-1, MEMORY_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._before: dict[int, int] = {}
        for what, kept in KEPT.items():
            soft, hard = resource.getrlimit(what)
            if soft != resource.RLIM_INFINITY:
                self._before[what] = soft
                resource.setrlimit(what, (max(0, soft - kept), hard))

    def give_up(self) -> None:
        """The connection is made next. A limit that the program has lowered meanwhile is raised all the same."""
        self._memory.close()
        for what, soft in self._before.items():
            _, hard = resource.getrlimit(what)
            resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
