"""Domains that want everything: what they get has a bound, and others get theirs."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvd.domains.programs.nuisance import WAYS
from hvd.toolstack.bench import fairness
from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.messages import DomainConfig, RestartPolicy

DEADLINE_S = 60.0
DESCRIPTORS = 4096
CALLS = 200
SCARCE = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DomainConfig
from hvd.transport.hypercalls import HypercallError

def used(cluster):
    return cluster.info()["descriptors"]

def full(cluster, name):
    cluster.create(DomainConfig(name, "hvd:nuisance", args=["fills_all"])).wait_ready({DEADLINE_S})
    return used(cluster)

with Cluster.build() as cluster:
    counts = [used(cluster), *(full(cluster, f"greedy-{{number}}") for number in range(3))]
    cluster.create(DomainConfig("modest", "hvd:measured")).wait_ready({DEADLINE_S})
    print(*counts)
"""


def test_whoever_wants_every_descriptor_leaves_others_theirs():
    """Without a part for each the first would take all, and nobody could be started any more."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS:
        pytest.skip(f"it takes {DESCRIPTORS} descriptors")
    run = subprocess.run(
        [sys.executable, "-c", SCARCE], capture_output=True, text=True, timeout=DEADLINE_S * 2, check=False
    )
    assert run.returncode == 0, run.stderr
    counts = [int(word) for word in run.stdout.split()]
    most = DESCRIPTORS // 2  # half are spared
    assert counts[1] > most // 3, "half is for whoever asks; bells that the broker rings are not counted here"
    assert counts == sorted(counts)
    assert counts[-1] < most


@pytest.mark.parametrize("way", [way for way in WAYS if way != "fills_all"])
def test_beside_one_that_wants_everything_another_makes_its_way(way):
    kind = "program" if way == "forks" else "guest"
    with Cluster.build() as cluster:
        forever = RestartPolicy(limit=0)
        greedy = cluster.create(
            DomainConfig("greedy", "hvd:nuisance", args=[way], sandbox=kind, on_crash="restart", restart=forever)
        )
        greedy.wait_ready(DEADLINE_S)
        other = cluster.create(DomainConfig("other", "hvd:measured"))
        other.wait_ready(DEADLINE_S)
        for _ in range(CALLS):
            info = cluster.infos()[other.domid]
            assert (info.state, info.restarts) == (DomainState.RUNNING, 0)
        other.shutdown()
        other.wait_gone(DEADLINE_S)


CPUS = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(len(CPUS) < 2, reason="it takes two CPUs")
def test_the_broker_works_where_those_are_whom_it_works_for():
    """As a hypercall of Xen's is carried out on its caller's CPU: whoever calls without end takes nobody else's."""
    with Cluster.build() as cluster:
        greedy = cluster.create(DomainConfig("greedy", "hvd:nuisance", args=["calls"], cpus=CPUS[:1]))
        _wait_for_broker_on(cluster, CPUS[:1])
        other = cluster.create(DomainConfig("other", "hvd:measured", cpus=CPUS[-1:]))
        other.wait_ready(DEADLINE_S)
        _wait_for_broker_on(cluster, CPUS[:1])
        greedy.destroy()
        greedy.wait_gone(DEADLINE_S)
        _wait_for_broker_on(cluster, CPUS)


@pytest.mark.skipif(len(CPUS) < 2, reason="it takes two CPUs")
@pytest.mark.parametrize(
    ("way", "on_crash"),
    [("xenstored.ask_for_ever", "destroy"), ("xenstored.connect_for_ever", "destroy"),
     ("messages.post_for_ever", "coredump-destroy")],
)  # fmt: skip
def test_by_whatever_way_somebody_has_the_broker_work_it_does_so_where_he_is(way, on_crash):
    """Requests by XenStore's socket, connections and what is dropped unheard were once nobody's."""
    with Cluster.build() as cluster:
        cluster.create(DomainConfig("greedy", "hvd:hostile", args=[way], cpus=CPUS[:1], on_crash=on_crash))
        _wait_for_broker_on(cluster, CPUS[:1])


@pytest.mark.skipif(len(CPUS) < 2, reason="it takes two CPUs")
def test_a_new_broker_follows_too():
    with Cluster.build() as cluster:
        cluster.create(DomainConfig("greedy", "hvd:nuisance", args=["calls"], cpus=CPUS[-1:]))
        _wait_for_broker_on(cluster, CPUS[-1:])
        before = cluster.info()["broker_pid"]
        os.kill(before, 9)
        while cluster.info()["broker_pid"] == before:
            pass
        _wait_for_broker_on(cluster, CPUS[-1:])


def _wait_for_broker_on(cluster, cpus):
    """All of its threads but the one that looks after them."""
    pid = cluster.info()["broker_pid"]
    until = time.monotonic() + DEADLINE_S
    while not _keeps_to(pid, cpus):
        assert time.monotonic() < until, f"the broker is not on CPUs {cpus}"
        time.sleep(0.001)


def _keeps_to(pid, cpus):
    kept = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            kept.append(os.sched_getaffinity(int(task.name)) == set(cpus))
    return sum(kept) >= len(kept) - 1


def test_every_way_is_measured():
    assert {*fairness.WAYS, "fills_all"} == set(WAYS)
