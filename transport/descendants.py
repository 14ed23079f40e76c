"""Which processes descend from one, as the kernel lists them: the whole of a domain, whose first process it is."""

from __future__ import annotations

import os
from contextlib import suppress


def children(pid: int) -> list[int]:
    """Those that a process has started and nobody has reaped. OSError when it is gone, or the kernel does not say."""
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def family(pid: int | None) -> list[int]:
    """A process and all that descend from it; [] for None. Of those that come and go meanwhile some may be missing."""
    found = [] if pid is None else [pid]
    for member in found:  # which grows meanwhile
        with suppress(OSError):
            found.extend(children(member))
    return found
