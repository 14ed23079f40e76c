"""A domain that asks for nothing makes no connection; its first question is answered whenever it comes, and once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cluster import Domain
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig
from tests.waiting import wait_for

ASKERS = 6
DEADLINE_S = 60.0
ASKS_LATE = """
import os, threading
from hvd.transport import messages as m

def use_up_threads_and_descriptors():
    end = threading.Event()
    try:
        while True:
            threading.Thread(target=end.wait, daemon=True).start()
    except RuntimeError:
        pass
    try:
        while True:
            os.dup(0)
    except OSError:
        pass

def main(guest):
    # Transactions are numbered: what was begun twice is seen.
    print("here")
    while not os.path.getsize(guest.args[0]):
        guest.wait(0.005)
    if "greedy" in guest.args:
        use_up_threads_and_descriptors()
    call = guest.runtime.hypercalls.call
    begun = [call(m.StoreTransactionStart()) for _ in range(3)]
    call(m.StoreWrite(0, "data/begun", repr(begun).encode()))
    guest.run_forever()
"""


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file that they look at."""
    made = tmp_path / "go"
    made.touch()
    return made


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


def asker(cluster: Cluster, go: Path, name: str, *args: str) -> Domain:
    """One that has come as far as it does without asking."""
    kernel = go.with_name("asks_late.py")
    kernel.write_text(ASKS_LATE)
    config = DomainConfig(name, str(kernel), args=[str(go), *args], paths=[str(go)], on_crash="preserve")
    domain = cluster.create(config)
    domain.wait_ready()
    wait_for(lambda: "here" in domain.console_log(), "its first line")
    return domain


def threads(pid: int | None) -> list[str]:
    """Their names; ZeroMQ's tell whose they are."""
    return sorted(file.read_text().strip() for file in Path(f"/proc/{pid}/task").glob("*/comm"))


def is_connected(pid: int | None) -> bool:
    return any(name.startswith("ZMQ") for name in threads(pid))


def begun(cluster: Cluster, domain: Domain) -> str:
    try:
        return str(cluster.call(m.StoreRead(0, f"/local/domain/{domain.domid}/data/begun")).decode())
    except HypercallError:
        return ""


def wait_for_three(cluster: Cluster, domain: Domain) -> None:
    wait_for(lambda: begun(cluster, domain) == "[1, 2, 3]", lambda: f"{domain.info()} {domain.console_log()}")


def test_a_domain_that_asks_for_nothing_has_its_own_thread_and_the_one_that_its_end_is_seen_by(cluster, go):
    domain = asker(cluster, go, "quiet")
    assert threads(domain.pid) == ["hvd:quiet"] * 2


def test_a_question_is_answered_though_threads_and_descriptors_are_used_up_by_then(cluster, go):
    domain = asker(cluster, go, "late", "greedy")
    go.write_text("go")
    wait_for_three(cluster, domain)
    assert is_connected(domain.pid)


def test_first_questions_to_a_broker_that_is_dead_are_carried_out_once_by_the_next(cluster, go):
    domains = [asker(cluster, go, f"asker-{number}") for number in range(ASKERS)]
    broker, pids = cluster.info()["broker_pid"], [domain.pid for domain in domains]
    os.kill(broker, signal.SIGSTOP)  # whoever asks now has nobody who answers
    go.write_text("go")
    for pid in pids:
        wait_for(partial(is_connected, pid), "its connection")
    with contextlib.suppress(ProcessLookupError):  # the machine ends a broker that it finds stopped for some seconds
        os.kill(broker, signal.SIGKILL)
    for domain in domains:
        wait_for_three(cluster, domain)
    assert cluster.info()["broker_pid"] != broker


def test_a_domain_that_has_never_asked_ends_well_when_it_is_told_to_by_another_broker(cluster, go):
    domain = asker(cluster, go, "quiet")
    broker = cluster.info()["broker_pid"]
    os.kill(broker, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != broker, "another broker")
    with cluster.events() as events:
        domain.shutdown(grace_s=DEADLINE_S)
        domain.wait_gone(DEADLINE_S)
        while (told := events.next(DEADLINE_S)).event != "died":
            continue
    assert told.detail == "poweroff"
