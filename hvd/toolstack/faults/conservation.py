"""Counts what a cluster holds, by the broker's tables and by the kernel: after a fault it is what it was before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hvd.toolstack.cluster import Cluster

TABLES = ("domains", "ports", "granted_pages", "mappings", "extents")
"""Of the hypervisor's tables, all domains together."""
LOOKS, AGREEING, BETWEEN_LOOKS_S = 80, 6, 0.05
LASTING = ("hvd-broker", "hvd-zygote")
"""The machine's children whose descriptors are counted: domains' come and go with what they do."""
STANDBY = "hvd:standby"
"""Processes that have no domain yet: they are made anew when there is time for it."""
KEPT = ("mnt:", "anon_inode:[pidfd]")
"""What a zygote keeps of the domains that it has made (domains/mounts.py); the next one has nothing of theirs."""
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Census:
    """Counts by name; those of the kernel name the process they are of."""

    counts: dict[str, int]

    def difference(self, before: Census) -> dict[str, tuple[int, int]]:
        """(before, now) of each count that has changed."""
        names = dict.fromkeys((*before.counts, *self.counts))
        pairs = {name: (before.counts.get(name, 0), self.counts.get(name, 0)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def census(cluster: Cluster) -> Census:
    """What there is now. Not one moment: ask again while something goes on."""
    info = cluster.info()
    counts = {name: info[name] for name in TABLES}
    for row in cluster.quotas():
        counts["store nodes"] = counts.get("store nodes", 0) + row["quotas"]["store nodes"][0]
        counts["watches"] = counts.get("watches", 0) + row["quotas"]["watches"][0]
    machine = cluster.connection.machine_pid
    family = _descendants(machine)
    counts["processes"] = sum(_name(pid) != STANDBY for pid in family)
    named = {name.removeprefix("hvd-"): pid for pid in family if (name := _name(pid)) in LASTING}
    for name, pid in {"machine": machine, **named}.items():
        counts[f"descriptors of the {name}"] = _descriptors(pid, KEPT if name == "zygote" else ())
    shared = [memory for pid in (machine, *family) for memory in _shared_memory(pid)]
    counts["shared memory objects"] = len(set(shared))
    return Census(counts)


def settled(cluster: Cluster, meanwhile: Callable[[], None] = lambda: None) -> Census:
    """What there is when the machine has caught up with what it does for later: so many looks in a row agree."""
    before, agreed = census(cluster), 0
    for _ in range(LOOKS):
        time.sleep(BETWEEN_LOOKS_S)
        meanwhile()
        now = census(cluster)
        agreed = 0 if now.difference(before) else agreed + 1
        if agreed == AGREEING:
            break
        before = now
    return before


def _descendants(pid: int) -> list[int]:
    """All that it has forked, and what those have."""
    found = _children(pid)
    for child in found:
        found.extend(_children(child))
    return found


def _children(pid: int) -> list[int]:
    try:
        lists = [(thread / "children").read_text() for thread in (PROC / str(pid) / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has gone meanwhile
    return [int(child) for each in lists for child in each.split()]


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descriptors(pid: int, without: tuple[str, ...]) -> int:
    """How many a process has, but for these; 0 for one that has gone.

    An end of a pipe counts once: a broker holds both ends of each channel's pipes, and opens one once more when it
    first rings that bell (held.py), which says who was rung and nothing else.
    """
    found = 0
    ends = set()
    for link, entry in _links(pid):
        if link.startswith("pipe:"):
            with suppress(FileNotFoundError):
                ends.add((link, entry.lstat().st_mode))
        else:
            found += not link.startswith(without)
    return found + len(ends)


def _shared_memory(pid: int) -> set[tuple[int, int]]:
    """Memfds that a process holds, as device and inode."""
    found = set()
    for link, entry in _links(pid):
        if link.startswith("/memfd:"):
            with suppress(FileNotFoundError):
                status = entry.stat()
                found.add((status.st_dev, status.st_ino))
    return found


def _links(pid: int) -> Iterator[tuple[str, Path]]:
    """What each descriptor of a process is, and where that stands; those that are closed meanwhile are left out."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield str(entry.readlink()), entry

