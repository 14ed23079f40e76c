"""Whoever has processes made has them made on its own CPUs: its births take nothing of a CPU that others have."""

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from hvd import Cluster
from hvd.transport.messages import DomainConfig
from tests.waiting import wait_for

CPUS = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="it takes two CPUs")


def waiting(machine_pid: int) -> dict[str, list[set[int]]]:
    """The CPUs of the zygote and of those that stand by, by what they are called.

    What a zygote has just forked is called so too, until it stands by.
    """
    found: dict[str, list[set[int]]] = {}
    for process in psutil.Process(machine_pid).children():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has gone meanwhile
            name = Path(f"/proc/{process.pid}/comm").read_text().strip()
            found.setdefault(name, []).append(os.sched_getaffinity(process.pid))
    return found


def wait_zygote_on(machine_pid: int, cpus: list[int]) -> None:
    wait_for(lambda: waiting(machine_pid)["hvd-zygote"] == [set(cpus)], lambda: f"{cpus}: {waiting(machine_pid)}")


def test_whoever_stands_by_next_is_made_where_the_last_one_was_wanted_and_runs_where_it_is_wanted() -> None:
    with Cluster.build() as cluster:
        machine_pid = cluster.info()["machine_pid"]

        def all_stand_by_on(cpus: list[int]) -> bool:
            found = waiting(machine_pid)
            return found.get("hvd:standby") == [set(cpus)] * 2 and found["hvd-zygote"] == [set(cpus)]

        wait_for(lambda: all_stand_by_on(CPUS), lambda: f"{waiting(machine_pid)}")
        for number in range(2):
            cluster.create(DomainConfig(f"pinned-{number}", "hvd:idle", cpus=CPUS[:1])).wait_ready()
        wait_for(lambda: all_stand_by_on(CPUS[:1]), lambda: f"{waiting(machine_pid)}")
        free = cluster.create(DomainConfig("free", "hvd:idle"))
        free.wait_ready()
        assert os.sched_getaffinity(free.pid or 0) == set(CPUS)
        wait_zygote_on(machine_pid, CPUS)


def test_a_hypervisor_that_is_kept_to_its_cpus_leaves_domains_theirs() -> None:
    with Cluster.build([DomainConfig("pinned", "hvd:idle", cpus=CPUS[1:])], cpus=CPUS[:1]) as cluster:
        info = cluster.info()
        free = cluster.create(DomainConfig("free", "hvd:idle"))
        free.wait_ready()
        assert [os.sched_getaffinity(info[each]) for each in ("machine_pid", "broker_pid")] == [{CPUS[0]}] * 2
        wait_zygote_on(info["machine_pid"], CPUS[:1])
        pinned = cluster.domain("pinned")
        pinned.wait_ready()
        assert [os.sched_getaffinity(each.pid or 0) for each in (pinned, free)] == [set(CPUS[1:]), set(CPUS)]
        os.kill(info["broker_pid"], signal.SIGKILL)
        assert os.sched_getaffinity(cluster.info()["broker_pid"]) == {CPUS[0]}
