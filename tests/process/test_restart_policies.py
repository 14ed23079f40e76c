"""What follows a death, with real processes: on_* actions, a crash loop's end, the watchdog, time that stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster, DomainState, NotReached
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy

DEADLINE_S = 40.0
CRASHING = "def main(guest):\n    raise ValueError(f'life {guest.incarnation}')\n"
BROKEN = "AUTO_READY = False\ndef main(guest):\n    raise ValueError('broken')\n"
HANGING = """
from hvd.transport.messages import SchedWatchdog
def main(guest):
    if guest.incarnation == 1:
        guest.runtime.hypercalls.call(SchedWatchdog(0, 1))
        while True:
            pass
    guest.run_forever()
"""
TIMER = """
VIRQ_TIMER = 0
def main(guest):
    rung = []
    runtime = guest.runtime

    def armed():
        rung.clear()
        deadline = runtime.system_time_ns() + 2_000_000_000
        runtime.set_timer(deadline)
        return deadline

    runtime.bind_virq(VIRQ_TIMER, lambda: rung.append(runtime.system_time_ns()))
    runtime.wait(0)
    deadline = armed()
    while not runtime.shared_info.read().paused_ns:  # until somebody comes to pausing it before that is over
        runtime.wait(0.05)
        deadline = armed() if rung else deadline
    runtime.wait_until(lambda: bool(rung), "the timer", 20)
    assert deadline <= rung[0], (deadline, rung)
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


def test_on_crash_destroy_forgets_the_domain(cluster, kernel):
    domain = cluster.create(DomainConfig("car", kernel(CRASHING), on_crash="destroy"))
    domain.wait_gone(DEADLINE_S)


def test_on_crash_preserve_keeps_it_with_its_last_death_until_it_is_told_to_boot(cluster, kernel):
    domain = cluster.create(DomainConfig("car", kernel(CRASHING), on_crash="preserve"))
    info = domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    assert info.last_death == "crash: ValueError: life 1"
    assert info.pid is None
    domain.reboot()
    domain.wait_until(lambda i: i.incarnation == 2 and i.state is DomainState.PRESERVED, "to end again", DEADLINE_S)
    assert domain.last_death == "crash: ValueError: life 2"
    domain.destroy()


def test_on_crash_rename_restart_keeps_the_dead_and_boots_another_under_its_name(cluster, kernel):
    domain = cluster.create(DomainConfig("car", "hvd:idle", on_crash="rename-restart"))
    domain.wait_ready()
    domain.kill()
    domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    assert domain.info().name == f"car-{domain.domid}"
    successor = cluster.domain("car")
    assert successor.domid > domain.domid
    cluster.wait_until(lambda: successor.ready, "the successor", DEADLINE_S)
    successor.destroy()
    domain.destroy()


def test_a_domain_that_dies_unready_is_restarted_five_times_with_longer_pauses_and_then_failed(cluster, kernel):
    policy = RestartPolicy(limit=5, window_ms=600_000, delay_ms=20)
    with cluster.events() as events:
        domain = cluster.create(DomainConfig("car", kernel(BROKEN), restart=policy))
        news: list[Any] = []
        while not news or news[-1].event != "failed":
            event = events.next(DEADLINE_S)
            news += [event] if event.domid == domain.domid else []
    delays = [event.detail for event in news if event.event == "backing off"]
    assert delays == ["20 ms", "40 ms", "80 ms", "160 ms", "320 ms"]
    starts = [event.at_ns for event in news if event.event == "starting"]
    assert len(starts) == 6
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert all(pause >= 20_000_000 << number for number, pause in enumerate(pauses))
    info = domain.info()
    assert info.state is DomainState.FAILED
    assert "crash: ValueError: broken" in info.last_death
    domain.destroy()


def test_a_domain_that_does_not_feed_its_watchdog_is_started_again(cluster, kernel):
    domain = cluster.create(DomainConfig("car", kernel(HANGING), on_crash="destroy", on_watchdog="restart"))
    domain.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be restarted", DEADLINE_S)
    assert "watchdog" in domain.last_death
    domain.destroy()


def test_a_timer_waits_while_its_domain_is_paused(cluster, kernel):
    config = DomainConfig("car", kernel(TIMER), on_crash="preserve", on_poweroff="preserve")
    domain = cluster.create(config)
    domain.wait_ready()
    domain.pause()
    stopped = domain.info().uptime_ns
    time.sleep(2.2)  # host time in which the timer would have gone off
    assert domain.info().uptime_ns == stopped
    domain.unpause()
    info = domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    assert info.last_death == "poweroff", domain.console_log()
    domain.destroy()


def test_who_comes_after_a_domain_starts_when_that_is_ready_whatever_the_order_of_creation(cluster):
    with cluster.events() as events:
        second = cluster.create(DomainConfig("second", "hvd:idle", after=["Domain-0"]))
        driver = cluster.create(DomainConfig("late", "hvd:driver_domain", driver_domain=True, after=["second"]))
        echo = DeviceConfig("echo", 0, "late")
        user = cluster.create(DomainConfig("user", "hvd:idle", after=["late"], devices=[echo]))
        seen = []
        while ("ready", user.domid) not in seen:
            event = events.next(DEADLINE_S)
            seen.append((event.event, event.domid))
    assert seen.index(("ready", second.domid)) < seen.index(("starting", driver.domid))
    assert seen.index(("ready", driver.domid)) < seen.index(("starting", user.domid))
    for domain in (user, driver, second):
        domain.destroy()


def test_who_waits_for_a_domain_that_is_destroyed_says_so_and_starts_when_there_is_one_of_that_name_again(cluster):
    slow = cluster.create(DomainConfig("slow", "hvd:idle", paused=True))
    behind = cluster.create(DomainConfig("behind", "hvd:idle", after=["slow"]))
    slow.destroy()
    assert behind.info().waits_for == ("slow",)
    with pytest.raises(NotReached, match=r"behind .* is waiting for slow, not ready"):
        behind.wait_ready(0.2)
    slow = cluster.create(DomainConfig("slow", "hvd:idle"))
    behind.wait_ready(DEADLINE_S)
    assert behind.info().waits_for == ()
    for domain in (behind, slow):
        domain.destroy()
