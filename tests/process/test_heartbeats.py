"""Hangs, with real processes: each is found and ends as on_watchdog says, and nothing else is taken for one."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.transport import _native
from hvd.transport.messages import DeviceConfig, DomainConfig, StoreWrite

DEADLINE_S = 40.0
QUICK_MS = 50
COMPUTING = """
import time
def main(guest):
    until = time.process_time() + float(guest.args[0])
    n = 0
    while time.process_time() < until:
        n = sum(range(1_000_000))  # one statement that no event gets into
    print("computed", n)
"""
LOCKED = """
import threading
def main(guest):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""
SLEEPING = """
import time
def main(guest):
    while guest.runtime.store.read("data/seen") is None:
        time.sleep(1)
"""
POLLING = """
VIRQ_TIMER = 0
def main(guest):
    port = guest.runtime.bind_virq(VIRQ_TIMER, lambda: None)
    guest.runtime.wait(0)
    guest.ready()
    while True:
        guest.runtime.poll((port,), 1000)
AUTO_READY = False
"""
STUCK_DRIVER = """
from hvd.domains.programs.driver_domain import main as serve
class Stuck(Exception): pass
def main(guest):
    if guest.incarnation > 1:
        return serve(guest)
    driver_domain = guest.serve_backends()
    guest.ready()
    while not guest.runtime.store.directory("backend/echo"):
        guest.wait()
    while True:
        pass
AUTO_READY = False
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as cluster:
        yield cluster


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "kernel.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def domains(cluster: Cluster) -> Iterator[Callable[..., Domain]]:
    """Makes domains with a quick heartbeat, whose crash would not be repaired and whose hang is."""
    made: list[Domain] = []

    def make(kernel: str, **fields: Any) -> Domain:
        named = {"name": "car", "heartbeat_ms": QUICK_MS, "on_crash": "preserve", "on_watchdog": "restart"}
        made.append(cluster.create(DomainConfig(kernel=kernel, **{**named, **fields})))
        return made[-1]

    yield make
    for domain in made:
        if domain.domid in cluster.infos():
            domain.destroy()


@contextmanager
def full_load() -> Iterator[None]:
    """Two processes for each CPU that want all of it."""
    context = multiprocessing.get_context("fork")
    spinners = [context.Process(target=_spin) for _ in range(2 * (os.cpu_count() or 1))]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()
            spinner.close()


def _spin() -> None:
    while True:
        pass


def until_found(domain: Domain, *how: str) -> None:
    """Until the broker has seen it so. What it sees announces nothing: it is asked again and again."""
    deadline = time.monotonic() + DEADLINE_S
    while domain.info().heartbeat not in how:
        assert time.monotonic() < deadline, domain.info()
        time.sleep(0.005)


def hang_of(domain: Domain) -> str:
    """Wait for its second incarnation; what the first died of."""
    info = domain.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be restarted", DEADLINE_S)
    return info.last_death


def process_of(domain: Domain) -> int:
    pid = domain.info().pid
    assert pid is not None
    return pid


# ---- hangs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heartbeat_ms", [QUICK_MS, 1000])
def test_a_process_that_is_stopped_for_longer_than_its_heartbeat_is_a_hang(domains, heartbeat_ms):
    domain = domains("hvd:idle", heartbeat_ms=heartbeat_ms)
    domain.wait_ready()
    domain.kill(signal.SIGSTOP)
    assert hang_of(domain).startswith("watchdog: it hangs: its process has been stopped for")


@pytest.mark.parametrize(
    ("action", "state"), [("preserve", DomainState.PRESERVED), ("coredump-destroy", None), ("destroy", None)]
)
def test_on_watchdog_says_what_follows(cluster, domains, action, state):
    with cluster.events() as events:
        domain = domains("hvd:idle", on_watchdog=action)
        domain.wait_ready()
        domain.kill(signal.SIGSTOP)
        while True:
            event = events.next(DEADLINE_S)
            if event.domid == domain.domid and event.event == "died":
                break
    assert ("core" in event.detail) == action.startswith("coredump")
    if state is None:
        domain.wait_gone(DEADLINE_S)
    else:
        domain.wait_state(state, deadline_s=DEADLINE_S)


def test_domain_0_has_a_heartbeat_too_and_is_started_again_alone(cluster, domains):
    bystander = domains("hvd:idle")
    bystander.wait_ready()
    dom0 = cluster.domain("dom0")
    before = dom0.incarnation
    dom0.kill(signal.SIGSTOP)
    dom0.wait_until(lambda info: info.incarnation == before + 1 and info.ready, "to be restarted", DEADLINE_S)
    assert bystander.incarnation == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what a domain waits for")
def test_a_deadlock_is_a_hang_when_events_have_waited_for_ten_seconds(cluster, domains, kernel):
    """Its beats are as long as may be: a broker that is kept from running for longer than one has it begin anew."""
    domain = domains(kernel(LOCKED), heartbeat_ms=1000, on_watchdog="preserve")
    domain.wait_ready()
    until_found(domain, "deaf")
    info = domain.wait_state(DomainState.PRESERVED, deadline_s=4 * DEADLINE_S)
    assert info.last_death.startswith("watchdog: it hangs: it has waited for something else for 10 s")


def test_a_driver_domain_that_computes_and_serves_nobody_is_a_hang_and_its_guest_is_served_again(domains, kernel):
    driver = domains(kernel(STUCK_DRIVER), name="drv", driver_domain=True)
    guest = domains("hvd:idle", name="guest", devices=[DeviceConfig("echo", 0, "drv")])
    said = re.fullmatch(r"watchdog: it hangs: it has computed for ([\d.]+) s and served nobody", hang_of(driver))
    assert said is not None and float(said[1]) >= 1  # more where the broker was kept from looking
    guest.wait_ready(DEADLINE_S)
    assert guest.incarnation == 1


def test_a_broker_after_one_that_was_killed_looks_after_the_same_domains(cluster, domains):
    domain = domains("hvd:idle")
    domain.wait_ready()
    with cluster.events() as events:
        os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
        while events.next(DEADLINE_S).event != "hello":
            pass
    until_found(domain, "beating")
    domain.kill(signal.SIGSTOP)
    assert "stopped" in hang_of(domain)


# ---- no hangs --------------------------------------------------------------------------------------------------------


def test_a_stop_that_is_shorter_than_the_heartbeat_is_no_hang(domains):
    domain = domains("hvd:idle", heartbeat_ms=5000)
    domain.wait_ready()
    for _ in range(5):
        domain.kill(signal.SIGSTOP)
        time.sleep(0.2)  # what is tested is time itself: less than the heartbeat
        domain.kill(signal.SIGCONT)
    until_found(domain, "beating")
    assert domain.incarnation == 1


def test_under_full_load_nobody_is_started_again_neither_who_computes_nor_who_is_idle(domains, kernel):
    idle = [domains("hvd:idle", name=f"idle-{number}") for number in range(4)]
    with full_load():
        busy = domains(kernel(COMPUTING), name="busy", args=["3"], on_poweroff="preserve")
        until_found(busy, "busy", "starved")
        info = busy.wait_state(DomainState.PRESERVED, deadline_s=280)
    assert (info.incarnation, info.last_death) == (1, "poweroff")
    for domain in idle:
        until_found(domain, "beating")
        assert domain.incarnation == 1


def test_a_guest_that_sleeps_by_its_own_clock_is_no_hang(cluster, domains, kernel):
    domain = domains(kernel(SLEEPING), on_poweroff="preserve")
    until_found(domain, "napping", "asleep")
    cluster.call(StoreWrite(0, f"/local/domain/{domain.domid}/data/seen", b"1"))
    assert domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death == "poweroff"


def test_who_polls_one_port_takes_its_beats(domains, kernel):
    domain = domains(kernel(POLLING))
    domain.wait_ready()
    time.sleep(5 * QUICK_MS / 1000)  # beats go by
    until_found(domain, "beating")
    assert domain.incarnation == 1


def test_a_paused_domain_does_not_beat_and_need_not(domains):
    domain = domains("hvd:idle")
    domain.wait_ready()
    domain.pause()
    time.sleep(10 * QUICK_MS / 1000)  # beats go by
    assert domain.info().heartbeat == ""
    domain.unpause()
    until_found(domain, "beating")
    assert domain.incarnation == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace a domain")
def test_a_domain_that_is_debugged_is_no_hang(domains):
    domain = domains("hvd:idle")
    domain.wait_ready()
    attached, done = threading.Event(), threading.Event()

    def debug() -> None:
        _native.ptrace_stop(process_of(domain))
        attached.set()
        done.wait(DEADLINE_S)  # it is let go when this thread ends

    debugger = threading.Thread(target=debug)
    debugger.start()
    try:
        assert attached.wait(DEADLINE_S)
        until_found(domain, "debugged")
        time.sleep(10 * QUICK_MS / 1000)  # beats go by
        assert domain.info().heartbeat == "debugged"
    finally:
        done.set()
        debugger.join()
    until_found(domain, "beating")
    assert domain.incarnation == 1


def test_a_machine_that_stands_still_as_a_whole_comes_back_with_all_its_domains(cluster, domains):
    made = [domains("hvd:idle", name=f"idle-{number}") for number in range(3)]
    cluster.wait_ready(DEADLINE_S, made)
    everybody = [cluster.info()["broker_pid"], *map(process_of, made)]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(10 * QUICK_MS / 1000)  # time in which nobody runs
    for pid in reversed(everybody):  # nobody stands still while the broker looks
        os.kill(pid, signal.SIGCONT)
    for domain in made:
        until_found(domain, "beating")
        assert domain.incarnation == 1


def test_a_heartbeat_of_0_finds_nothing(domains):
    domain = domains("hvd:idle", heartbeat_ms=0)
    watched = domains("hvd:idle", name="watched")
    for each in (domain, watched):
        each.wait_ready()
        each.kill(signal.SIGSTOP)
    assert "stopped" in hang_of(watched)
    assert (domain.info().heartbeat, domain.incarnation) == ("", 1)
    domain.kill(signal.SIGCONT)
