"""Which processes descend from one, as the kernel lists them: the whole of a domain, whose first process it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Those that a process has started and nobody has reaped. OSError when it is gone, or the kernel does not say."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_bytes().split()]


def family(pid: int | None) -> list[int]:
    """A process and all that descend from it; [] for None. Of those that come and go meanwhile some may be missing."""
    found = [] if pid is None else [pid]
    for member in found:  # which grows meanwhile
        with suppress(OSError):
            found.extend(children(member))
    return found
