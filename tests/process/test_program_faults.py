"""Faults of a domain that is a program hit every process that it has started, and are undone for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.faults import inject
from hvd.toolstack.faults.processes import Watched
from hvd.transport import descendants
from hvd.transport.messages import DomainConfig
from tests.waiting import wait_for

PYTHON = "/usr/bin/python3"
DEADLINE_S = 60.0
LONG_S = 60.0
"""Of a fault that is undone by hand."""
FAMILY = """
import os, time

def work(name):
    refused = {"open": False, "memory": False}
    words = {(what, was): f"{name} {what} {said}\\n".encode() for what in refused for was, said in
             ((True, "refused"), (False, "again"))}
    while True:
        for what in refused:
            try:
                os.close(os.open("/dev/null", os.O_RDONLY)) if what == "open" else bytearray(64 << 20)
            except (OSError, MemoryError):
                now = True
            else:
                now = False
            if now != refused[what]:
                refused[what] = now
                os.write(1, words[what, now])
                if name == "elder" and now and what == "open" and os.fork() == 0:
                    work("born later")
        time.sleep(0.01)

if os.fork() == 0:
    work("younger")
work("elder")
"""
pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.build([DomainConfig("family", PYTHON, args=["-c", FAMILY])]) as made:
        yield made


@pytest.fixture(scope="module")
def family(cluster: Cluster) -> Domain:
    found = cluster.domain("family")
    found.wait_ready(DEADLINE_S)
    wait_for(lambda: found.pid and len(descendants.family(found.pid)) == 3, "both of its processes")
    return found


def wait_until_told(domain: Domain, *lines: str) -> None:
    wait_for(lambda: not set(lines) - set(domain.console_log().splitlines()), lambda: f"{lines} {domain.console_log()}")


@pytest.fixture
def first(family: Domain) -> Iterator[Watched]:
    """What the kernel says of its first process and those below."""
    made = Watched(family.pid or 0)
    yield made
    made.close()


def test_no_process_of_it_can_open_a_descriptor_while_the_fault_lasts(cluster: Cluster, family: Domain) -> None:
    with inject(cluster, "fill-fds", family, for_s=LONG_S) as injection:
        assert injection.wait_activated() is True, injection.as_dict()
        wait_until_told(family, "elder open refused", "younger open refused", "born later open refused")
    assert "processes that it has started" in injection.evidence
    wait_until_told(family, "elder open again", "younger open again", "born later open again")


def test_no_process_of_it_gets_memory_while_the_fault_lasts(cluster: Cluster, family: Domain) -> None:
    with inject(cluster, "oom", family, for_s=LONG_S) as injection:
        assert injection.wait_activated() is True, injection.as_dict()
        wait_until_told(family, "elder memory refused", "younger memory refused")
    wait_until_told(family, "elder memory again", "younger memory again")


def test_what_it_has_started_stands_still_while_it_computes(cluster: Cluster, family: Domain, first: Watched) -> None:
    with inject(cluster, "busy", family, for_s=LONG_S) as injection:
        assert injection.wait_activated() is True, injection.as_dict()
        assert set(first.states_below().values()) == {"T"}
    wait_for(lambda: "T" not in first.states_below().values(), lambda: f"{first.states_below()}")


def test_the_next_broker_undoes_it_for_all(cluster: Cluster, family: Domain, first: Watched) -> None:
    limits = first.soft_limits_below("Max open files")
    with inject(cluster, "fill-fds", family, for_s=LONG_S) as injection:
        assert injection.wait_activated() is True, injection.as_dict()
        with inject(cluster, "broker-kill") as kill:
            assert kill.wait_activated() is True
        cluster.info()  # the next one answers
        assert not first.soft_limits_below("Max open files").items() & limits.items()
    wait_for(lambda: first.soft_limits_below("Max open files").items() >= limits.items(), "the limits as they were")
