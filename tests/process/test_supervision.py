"""Groups with real processes: who is restarted, in which order, how often, and what follows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, DomainState, LifecycleEvent
from hvd.transport.messages import DeviceConfig, DomainConfig, GroupConfig, RestartPolicy

DEADLINE_S = 40.0
CRASHING_AGAIN = """
def main(guest):
    guest.ready()
    if guest.incarnation > 1:
        raise ValueError(f"life {guest.incarnation}")
    guest.run_forever()
AUTO_READY = False
"""
TRIO = [
    DomainConfig("storage", "hvd:driver_domain", driver_domain=True),
    DomainConfig("ivi", "hvd:idle", devices=[DeviceConfig("echo", 0, "storage")]),
    DomainConfig("ic", "hvd:idle", after=["ivi"]),
    DomainConfig("outside", "hvd:idle"),
]
MEMBERS = ["storage", "ivi", "ic"]


def group(strategy: str, **fields: object) -> GroupConfig:
    return GroupConfig("cockpit", MEMBERS, strategy=strategy, **fields)  # type: ignore[arg-type]


@pytest.fixture
def heard() -> Iterator[Callable[..., list[tuple[str, str]]]]:
    """Kill a domain of a cluster; every (event, name) until the last of these has become ready again."""

    def kill_and_hear(
        cluster: Cluster, victim: str, last: str, kill: Callable[[], None] | None = None
    ) -> list[tuple[str, str]]:
        news: list[LifecycleEvent] = []
        with cluster.events() as events:
            (kill or cluster.domain(victim).kill)()
            while not news or (news[-1].event, news[-1].name) != ("ready", last):
                event = events.next(DEADLINE_S)
                assert event is not None
                news.append(event)
        return [(event.event, event.name) for event in news]

    yield kill_and_hear


def incarnations(cluster: Cluster) -> dict[str, int]:
    return {info.name: info.incarnation for info in cluster.infos().values() if info.domid}


def all_ready(cluster: Cluster, incarnation: int) -> bool:
    """Whether every member is ready in this incarnation or a later one."""
    members = [info for info in cluster.infos().values() if info.group]
    return all(info.ready and info.incarnation >= incarnation for info in members)


def started(news: list[tuple[str, str]]) -> list[str]:
    return [name for event, name in news if event == "starting"]


def test_one_for_all_restarts_every_member_in_start_order_and_nobody_else(heard):
    with Cluster.build(TRIO, groups=[group("one_for_all")]) as cluster:
        news = heard(cluster, "ivi", "ic")
        assert started(news) == MEMBERS
        deaths = [number for number, (event, _) in enumerate(news) if event == "died"]
        assert len(deaths) == 3 and max(deaths) < news.index(("starting", "storage"))
        assert news.index(("ready", "storage")) < news.index(("starting", "ivi"))
        assert incarnations(cluster) == {"storage": 2, "ivi": 2, "ic": 2, "outside": 1}
        assert cluster.domain("ic").last_death == "stopped with its group"
        assert cluster.domain("ic").info().group == "cockpit"


def test_rest_for_one_restarts_those_that_start_behind_it(heard):
    with Cluster.build(TRIO, groups=[group("rest_for_one")]) as cluster:
        assert started(heard(cluster, "ivi", "ic")) == ["ivi", "ic"]
        assert incarnations(cluster) == {"storage": 1, "ivi": 2, "ic": 2, "outside": 1}


def test_one_for_one_restarts_nobody_else(heard):
    with Cluster.build(TRIO, groups=[group("one_for_one")]) as cluster:
        assert started(heard(cluster, "storage", "storage")) == ["storage"]
        assert incarnations(cluster) == {"storage": 2, "ivi": 1, "ic": 1, "outside": 1}


def test_a_hang_is_a_fault_of_the_group_too(heard):
    configs = [DomainConfig(name, "hvd:idle", heartbeat_ms=50) for name in MEMBERS]
    with Cluster.build(configs, groups=[group("one_for_all")]) as cluster:
        ivi = cluster.domain("ivi")
        assert started(heard(cluster, "ivi", "ic", lambda: ivi.kill(signal.SIGSTOP))) == MEMBERS
        assert "stopped for" in ivi.last_death


def test_a_member_that_is_shut_down_or_rebooted_concerns_nobody_else():
    with Cluster.build(TRIO, groups=[group("one_for_all")]) as cluster:
        cluster.domain("ivi").reboot()
        cluster.domain("ivi").wait_ready(DEADLINE_S)
        ic = cluster.domain("ic")
        ic.shutdown()
        ic.wait_gone(DEADLINE_S)
        assert incarnations(cluster) == {"storage": 1, "ivi": 2, "outside": 1}


def test_a_crash_loop_fails_the_group_when_it_has_restarted_too_often(tmp_path):
    kernel = tmp_path / "kernel.py"
    kernel.write_text(CRASHING_AGAIN)
    forever = RestartPolicy(limit=0)
    configs = [DomainConfig("bad", str(kernel), restart=forever), DomainConfig("good", "hvd:idle"),
               DomainConfig("outside", "hvd:idle")]  # fmt: skip
    trio = GroupConfig("trio", ["bad", "good"], strategy="one_for_all", limit=3, window_ms=60_000)
    with Cluster.build(configs, groups=[trio]) as cluster:
        bad, good = cluster.domain("bad"), cluster.domain("good")
        bad.kill()
        for domain in (bad, good):
            info = domain.wait_state(DomainState.FAILED, deadline_s=DEADLINE_S)
            assert info.last_death == "group trio: 3 restarts within 60 s; last: bad: crash: ValueError: life 4"
        assert (bad.incarnation, cluster.domain("outside").state) == (4, DomainState.RUNNING)
        good.reboot()
        good.wait_ready(DEADLINE_S)


def test_a_group_that_escalates_restarts_the_one_around_it(heard):
    configs = [DomainConfig(name, "hvd:idle") for name in "abc"]
    groups = [
        GroupConfig("inner", ["a"], limit=1, window_ms=60_000, escalate="parent"),
        GroupConfig("outer", ["inner", "b"], strategy="one_for_all"),
    ]
    with Cluster.build(configs, groups=groups) as cluster:
        assert started(heard(cluster, "a", "a")) == ["a"]
        assert started(heard(cluster, "a", "b")) == ["a", "b"]
        assert incarnations(cluster) == {"a": 3, "b": 2, "c": 1}


def test_a_group_that_may_not_fail_has_the_machine_rebooted():
    configs = [DomainConfig("a", "hvd:idle"), DomainConfig("b", "hvd:idle")]
    groups = [GroupConfig("g", ["a"], limit=1, window_ms=60_000, escalate="reboot-machine")]
    with Cluster.build(configs, groups=groups) as cluster:
        cluster.domain("a").kill()
        cluster.domain("a").wait_ready(DEADLINE_S)
        booted = cluster.info()["machine_pid"], cluster.info()["broker_pid"]
        with cluster.events() as events:
            cluster.domain("a").kill()
            while events.next(DEADLINE_S).event != "hello":
                pass
        cluster.wait_until(
            lambda: incarnations(cluster) == {"a": 1, "b": 1} and all(info.ready for info in cluster.infos().values()),
            "everything to boot again", DEADLINE_S,
        )  # fmt: skip
        machine, broker = cluster.info()["machine_pid"], cluster.info()["broker_pid"]
        assert machine == booted[0] and broker != booted[1]


def test_a_broker_that_is_killed_in_the_middle_of_a_group_restart_continues_it():
    with Cluster.build(TRIO, groups=[group("one_for_all", limit=0)]) as cluster:
        for round_ in range(5):
            with cluster.events() as events:
                cluster.domain("ivi").kill()
                while (event := events.next(DEADLINE_S)).event != "group restarts":
                    assert event is not None
                os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
            cluster.wait_until(lambda life=round_ + 2: all_ready(cluster, life), "the whole group", DEADLINE_S)  # type: ignore[misc]
            assert incarnations(cluster) == {"storage": round_ + 2, "ivi": round_ + 2, "ic": round_ + 2, "outside": 1}


FILE = """
[[domain]]
name = "a"
kernel = "hvd:idle"
heartbeat_ms = 50

[[domain]]
name = "b"
kernel = "hvd:idle"

[[group]]
name = "both"
members = ["a", "b"]
strategy = "one_for_all"
"""


def test_a_cluster_file_says_all_of_it(tmp_path, heard):
    file = Path(tmp_path, "both.toml")
    file.write_text(FILE)
    with Cluster.load(file) as cluster:
        assert started(heard(cluster, "a", "b")) == ["a", "b"]
        assert [cluster.domain(name).info().heartbeat_ms for name in "ab"] == [50, 1000]
