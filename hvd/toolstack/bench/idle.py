"""What a cluster costs that nobody asks anything: CPU time of all its processes, memory of each domain."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from hvd.toolstack.cluster import Cluster


def idle_cpu_percent(cluster: Cluster, duration_s: float) -> float:
    """CPU time that all processes of the cluster take while nobody asks anything of them, in percent of one CPU."""
    machine = psutil.Process(cluster.info()["machine_pid"])
    processes = [machine, *machine.children(recursive=True)]
    before = sum(_cpu_s(process) for process in processes)
    time.sleep(duration_s)
    return (sum(_cpu_s(process) for process in processes) - before) / duration_s * 100


def proportional_mib(pid: int) -> float:
    """The process's own pages, and its share of those it has in common with others (PSS). OSError when it is gone."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/{pid}/smaps_rollup has no line Pss")


def _cpu_s(process: psutil.Process) -> float:
    """By the scheduler's clock: the accounts that ps shows are rounded to ticks."""
    try:
        files = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9
    except (OSError, ValueError):
        return 0.0
