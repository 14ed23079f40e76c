"""A named service and its members: killed, hung, paused, all at once, with the broker; there is never more than one."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, Domain
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig, RestartPolicy
from tests.waiting import wait_stopped

KERNELS = Path(__file__).with_name("kernels")
DEADLINE_S = 60.0
FOREVER = RestartPolicy(limit=0)
HOME = "/local/service/gate"


class Gate:
    """Two members and a client."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.members = [cluster.domain("one"), cluster.domain("two")]
        self.client = cluster.domain("client")

    def read(self, path: str) -> str:
        try:
            value: bytes = self.cluster.call(m.StoreRead(0, path))
        except HypercallError as error:
            assert error.errno == errno.ENOENT
            return ""
        return value.decode()

    def write(self, path: str, value: str) -> None:
        self.cluster.call(m.StoreWrite(0, path, value.encode()))

    @property
    def epoch(self) -> int:
        return int(self.read(f"{HOME}/epoch") or 0)

    def active(self) -> Domain:
        """Who is, when somebody is."""
        found = ""

        def look() -> bool:
            nonlocal found
            found = self.read(f"{HOME}/active")
            return found != ""

        self.wait(look, "somebody active")
        return next(member for member in self.members if member.domid == int(found))

    def standby(self) -> Domain:
        """Who stands by, when the other is active and he is ready to be."""
        found: list[Domain] = []

        def look() -> bool:
            found[:] = [member for member in self.members if member.info().service == "gate: stands by"]
            return bool(found)

        self.wait(look, "one that stands by")
        return found[0]

    def progress(self, epoch: int) -> None:
        """Until the one of this epoch, or of a later, has counted on."""
        self.wait(lambda: int(self.read(f"{HOME}/data/epoch") or 0) >= epoch, f"work in epoch {epoch}")
        count = int(self.read(f"{HOME}/data/count"))
        self.wait(lambda: int(self.read(f"{HOME}/data/count")) > count + 3, f"more than {count}")

    def seen(self) -> list[str]:
        """domid/epoch of each that the client has been told of."""
        return self.read(f"/local/domain/{self.client.domid}/data/seen").split()

    def wait_seen(self, count: int) -> None:
        self.wait(lambda: len(self.seen()) >= count, f"the client to be told of {count}")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < until, f"not within {DEADLINE_S:g} s: {what}; {[d.info() for d in self.members]}"
            time.sleep(0.002)


@pytest.fixture
def gate() -> Iterator[Gate]:
    member = str(KERNELS / "member.py")
    configs = [
        DomainConfig("one", member, service="gate", restart=FOREVER),
        DomainConfig("two", member, service="gate", restart=FOREVER, after=["one"]),
        DomainConfig("client", str(KERNELS / "service_client.py"), after=["two"]),
    ]
    with Cluster.build(configs) as cluster:
        made = Gate(cluster)
        made.progress(1)
        made.wait_seen(1)
        yield made


def test_the_first_is_active_and_works_and_the_second_stands_by(gate: Gate) -> None:
    assert gate.active().name == "one"
    assert gate.standby().name == "two"
    assert gate.members[0].info().service == "gate: active, epoch 1"


def test_kill_after_kill_the_other_goes_on_where_the_dead_one_was_and_the_dead_one_stands_by(gate: Gate) -> None:
    for epoch in range(2, 8):
        standby, active = gate.standby(), gate.active()
        active.kill()
        gate.progress(epoch)
        assert (gate.active().name, gate.epoch) == (standby.name, epoch)
        gate.wait_seen(epoch)
    names = [gate.members[number % 2].domid for number in range(7)]
    expected = [f"{domid}/{epoch}" for epoch, domid in enumerate(names, 1)]
    assert gate.seen() == expected


def test_one_that_hangs_is_taken_for_dead_by_its_watchdog(gate: Gate) -> None:
    standby, active = gate.standby(), gate.active()
    gate.write(f"/local/domain/{active.domid}/data/hang", "1")
    gate.progress(2)
    assert gate.active().name == standby.name
    assert active.last_death.startswith("watchdog")


def test_a_paused_one_stays_active_and_goes_on_when_it_is_unpaused(gate: Gate) -> None:
    gate.standby()
    active = gate.active()
    active.pause()
    wait_stopped(active.pid)
    count = int(gate.read(f"{HOME}/data/count"))
    standby = gate.standby()
    standby.kill()
    standby.wait_ready()
    assert (gate.standby().name, gate.active().name, gate.epoch) == ("two", "one", 1)
    one_on_its_way_when_it_was_paused = count + 1
    assert int(gate.read(f"{HOME}/data/count")) in (count, one_on_its_way_when_it_was_paused)
    active.unpause()
    gate.progress(1)
    active.pause()
    active.kill()
    gate.progress(2)
    assert gate.active().name == "two"


def test_when_both_die_at_once_one_of_them_is_active_again_and_the_other_stands_by(gate: Gate) -> None:
    gate.standby()
    for pid in [member.pid for member in gate.members]:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    gate.wait(lambda: all(member.restarts == 1 and member.info().ready for member in gate.members), "both back")
    gate.progress(2)
    assert gate.active().name != gate.standby().name


def test_a_broker_that_dies_with_the_active_one_chooses_another_once(gate: Gate) -> None:
    for epoch in range(2, 6):
        standby, active = gate.standby(), gate.active()
        broker, pid = gate.cluster.info()["broker_pid"], active.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.kill(broker, signal.SIGKILL)
        gate.progress(epoch)
        assert (gate.active().name, gate.epoch) == (standby.name, epoch)


def test_one_that_was_active_cannot_write_there_any_more(gate: Gate) -> None:
    gate.standby()
    active = gate.active()
    made = f"{HOME}/data/by/{active.domid}"
    gate.wait(lambda: gate.read(made) == "1", "what it wrote while it was active")
    active.kill()
    gate.progress(2)
    assert gate.standby().domid == active.domid
    gate.write(f"/local/domain/{active.domid}/data/late", "1")
    gate.wait(lambda: gate.read(f"/local/domain/{active.domid}/data/outcome") != "", "its attempt")
    assert gate.read(f"/local/domain/{active.domid}/data/outcome") == str(errno.EACCES)
    assert gate.read(made) == "1"
