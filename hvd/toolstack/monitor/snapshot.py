"""A cluster at one moment: its domains with the time they have used, its rings' counters."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvd.toolstack.cluster.process_times import ProcessTimes, process_times
from hvd.transport.descendants import family

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster, DomainInfo


@dataclass(frozen=True, slots=True)
class Process:
    """What one domain's processes have used."""

    times: ProcessTimes
    cpu_ns: int
    """As the scheduler counts it: to the nanosecond, of threads that have not ended. Of several processes in ticks of
    the clock, those that have ended too."""
    resident_kib: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it; numbers that count are only worth something beside those of another snapshot."""

    at_ns: int
    """CLOCK_MONOTONIC."""
    domains: list[tuple[DomainInfo, Process]]
    rings: list[dict[str, Any]]


def take(cluster: Cluster) -> Snapshot:
    """Three hypercalls at least, and a few files of /proc for each domain."""
    rings, infos = cluster.rings(), cluster.infos().values()
    return Snapshot(time.monotonic_ns(), [(info, _process(info.pid)) for info in infos], rings)


def _process(pid: int | None) -> Process:
    times, members = process_times(pid), family(pid)
    cpu_ns = _cpu_ns(pid) if len(members) < 2 else int(times.seconds * 1e9)
    return Process(times, cpu_ns, sum(map(_resident_kib, members)))


def _cpu_ns(pid: int | None) -> int:
    """The time that its threads have run; 0 for one that is gone, or that we may not see."""
    used = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            used += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    except OSError:
        return used
    return used


def _resident_kib(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    except OSError:
        return 0
