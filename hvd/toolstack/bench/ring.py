"""The ring between two domains, awake and asleep, and a bare C eventfd ping-pong taken in turns with it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil

from hvd.toolstack.bench.figures import Figure, Goal, ratio
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DeviceConfig, DomainConfig

ECHO, CALLER = "bench-echo", "bench-caller"
IDLE_S = 2.0
DEADLINE_S = 120.0


def measure_ring(cluster: Cluster, directory: Path, *, hot: int, asleep: int) -> list[Figure]:
    """Two domains of our own in the cluster; each on a CPU of its own where there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    near, far = cpus[0], cpus[-1]
    out = directory / "ring.json"
    echo = cluster.create(DomainConfig(ECHO, "hvd:driver_domain", cpus=[near], driver_domain=True))
    echo.wait_ready(DEADLINE_S)
    arguments = [f"out={out}", f"hot={hot}", f"asleep={asleep}", f"peer_cpu={near}"]
    caller = cluster.create(
        DomainConfig(
            CALLER,
            "hvd:echo_caller",
            args=arguments,
            cpus=[far],
            on_crash="destroy",
            devices=[DeviceConfig("echo", 0, ECHO)],
        )
    )
    caller.wait_gone(DEADLINE_S)
    figures = json.loads(out.read_text())
    idle = idle_cpu_percent(cluster, IDLE_S)
    echo.destroy()
    hot_us, asleep_us, floor_us = ([ns / 1000 for ns in figures[key]] for key in ("hot_ns", "asleep_ns", "eventfd_ns"))
    return [
        Figure(
            "ring round trip, 64 bytes, both hot",
            "µs",
            hot_us,
            (Goal("p50", 1.0),),
            f"the cluster idle: {idle:.2f} % of one CPU",
        ),
        Figure("ring round trip, 64 bytes, both asleep", "µs", asleep_us),
        Figure("C eventfd ping-pong, both asleep", "µs", floor_us, note="the floor, in turns with the line above"),
        ratio("ring / eventfd, both asleep", asleep_us, floor_us, 1.25),
    ]


def idle_cpu_percent(cluster: Cluster, duration_s: float) -> float:
    """CPU time that all processes of the cluster take while nobody asks anything of them, in percent of one CPU."""
    machine = psutil.Process(cluster.info()["machine_pid"])
    processes = [machine, *machine.children(recursive=True)]
    before = sum(_cpu_s(process) for process in processes)
    time.sleep(duration_s)
    return (sum(_cpu_s(process) for process in processes) - before) / duration_s * 100


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
