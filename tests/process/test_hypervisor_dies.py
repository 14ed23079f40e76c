"""The hypervisor dies, hangs or is stopped, and so do the zygote and everything at once: who goes on, who notices."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.machine.watch import LOOK_EVERY_S, SILENT_MAX
from hvd.toolstack.cluster import Cluster, Domain
from hvd.transport import messages as m
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from tests.waiting import wait_for

DEADLINE_S = 60.0
PATIENCE_S = LOOK_EVERY_S * SILENT_MAX
FOREVER = RestartPolicy(limit=0)
TALKING = """
def main(guest):
    '''Answers each line of its console with what its disk says, which it writes anew each time.'''
    disk = guest.disk()
    while True:
        line = input()
        disk.write(0, line.encode().ljust(512))
        disk.flush()
        print(f"<{disk.read(0, 1).decode().strip()}>")
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A machine with dom0 alone."""
    with Cluster.build() as made:
        yield made


def ended(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            return bool(select.select([descriptor], [], [], DEADLINE_S)[0])
        finally:
            os.close(descriptor)
    return True


def children(pid: int) -> dict[int, str]:
    """Its living children, with what ps calls them."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ") S 0"
            state, parent = stat.rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def zygote_of(cluster: Cluster) -> int:
    """What it has just forked is called so too, until it stands by."""
    machine = cluster.info()["machine_pid"]
    named: list[int] = []

    def alone() -> bool:
        named[:] = [pid for pid, name in children(machine).items() if name == "hvd-zygote"]
        return len(named) == 1

    wait_for(alone, "one zygote")
    return named[0]


# ---- without a broker ------------------------------------------------------------------------------------------------


class Terminal:
    """The pty that a domain's console ends in."""

    def __init__(self, cluster: Cluster, domain: Domain) -> None:
        node = f"/local/domain/{domain.domid}/console/tty"
        wait_for(lambda: "tty" in cluster.call(m.StoreDirectory(0, node.rpartition("/")[0])), "a terminal")
        self._terminal = os.open(cluster.call(m.StoreRead(0, node)).decode(), os.O_RDWR | os.O_NOCTTY)

    def say(self, line: str) -> None:
        os.write(self._terminal, f"{line}\r".encode())

    def hear(self, text: str) -> None:
        """Read until this has come."""
        heard, end = "", time.monotonic() + DEADLINE_S
        while text not in heard:
            assert select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))[0], heard
            heard += os.read(self._terminal, 4096).decode()

    def close(self) -> None:
        os.close(self._terminal)


def test_block_and_console_io_go_on_while_there_is_no_broker_at_all(cluster: Cluster, tmp_path: Path) -> None:
    """The machine is stopped, so that the dead broker has no successor until it goes on."""
    (tmp_path / "talking.py").write_text(TALKING)
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    cluster.create(DomainConfig("driver", "hvd:driver_domain", driver_domain=True)).wait_ready(DEADLINE_S)
    keys = {"params": str(tmp_path / "image"), "type": "file", "mode": "w", "dev": "xvda", "device-type": "disk"}
    device = DeviceConfig("vbd", 51712, "driver", keys, {"virtual-device": "51712", "device-type": "disk"})
    guest = cluster.create(DomainConfig("guest", str(tmp_path / "talking.py"), devices=[device]))
    guest.wait_ready(DEADLINE_S)
    terminal = Terminal(cluster, guest)
    terminal.say("before")
    terminal.hear("<before>")
    info = cluster.info()
    os.kill(info["machine_pid"], signal.SIGSTOP)
    os.kill(info["broker_pid"], signal.SIGKILL)
    wait_for(lambda: info["broker_pid"] not in children(info["machine_pid"]), "the broker to be dead")
    for number in range(200):
        terminal.say(f"round {number}")
        terminal.hear(f"<round {number}>")
    assert not [name for name in children(info["machine_pid"]).values() if name == "hvd-broker"]
    os.kill(info["machine_pid"], signal.SIGCONT)
    assert cluster.info()["broker_restarts"] == 1
    assert [domain.incarnation for domain in cluster.domains()] == [1, 1, 1]
    cluster.create(DomainConfig("new", "hvd:idle")).wait_ready(DEADLINE_S)
    terminal.close()


# ---- hung, or only kept waiting --------------------------------------------------------------------------------------


def test_a_stopped_broker_is_replaced_and_what_was_asked_of_it_is_answered_once(cluster: Cluster) -> None:
    guest = cluster.create(DomainConfig("guest", "hvd:idle"))
    guest.wait_ready(DEADLINE_S)
    broker, pid = cluster.info()["broker_pid"], guest.pid
    os.kill(broker, signal.SIGSTOP)
    domid = cluster.call(m.DomctlCreate(DomainConfig("asked", "hvd:idle")))
    assert domid == guest.domid + 1
    assert (guest.pid, guest.incarnation) == (pid, 1)
    with cluster.events(after=0) as events:
        while (event := events.next(DEADLINE_S)).event != "broker restarted":
            continue
    assert event.detail == "1: killed by SIGKILL: it was stopped"
    assert ended(broker)


def test_a_stopped_zygote_is_replaced_though_nobody_asks_for_a_domain(cluster: Cluster) -> None:
    zygote = zygote_of(cluster)
    with cluster.events() as events:
        os.kill(zygote, signal.SIGSTOP)
        while (event := events.next(DEADLINE_S)).event != "zygote restarted":
            continue
    assert event.detail == "killed by SIGKILL: it was stopped"
    assert ended(zygote)
    cluster.create(DomainConfig("guest", "hvd:idle")).wait_ready(DEADLINE_S)


def test_who_is_stopped_for_less_than_the_patience_is_not_replaced(cluster: Cluster) -> None:
    broker, zygote = cluster.info()["broker_pid"], zygote_of(cluster)
    for _ in range(3):
        for pid in (broker, zygote):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(PATIENCE_S / 2 - LOOK_EVERY_S)  # a time is what this is about
        for pid in (broker, zygote):
            os.kill(pid, signal.SIGCONT)
        assert cluster.info()["broker_pid"] == broker
    assert (cluster.info()["broker_pid"], zygote_of(cluster)) == (broker, zygote)


def test_when_nobody_was_scheduled_for_longer_than_the_patience_nobody_is_replaced(cluster: Cluster) -> None:
    """A suspended laptop, a virtual machine that was paused: the machine has not looked meanwhile either."""
    info = cluster.info()
    everybody = [info["machine_pid"], *children(info["machine_pid"])]
    zygote = zygote_of(cluster)
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(PATIENCE_S + 2 * LOOK_EVERY_S)  # a time is what this is about
    for pid in reversed(everybody):  # nobody stands still while the machine looks
        os.kill(pid, signal.SIGCONT)
    time.sleep(2 * LOOK_EVERY_S)
    assert (cluster.info()["broker_pid"], zygote_of(cluster)) == (info["broker_pid"], zygote)


def test_under_full_load_nobody_is_taken_for_hung(cluster: Cluster) -> None:
    """Eight processes a CPU want to run all the time, more than the broker gets."""
    broker, zygote = cluster.info()["broker_pid"], zygote_of(cluster)
    spin = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(spin) for _ in range(8 * (os.cpu_count() or 1))]
    try:
        end = time.monotonic() + PATIENCE_S + 2 * LOOK_EVERY_S
        while time.monotonic() < end:
            cluster.call(m.ConsoleIo("busy"))
        assert (cluster.info()["broker_pid"], zygote_of(cluster)) == (broker, zygote)
    finally:
        for process in spinning:
            process.kill()
            process.wait(DEADLINE_S)


# ---- the zygote ------------------------------------------------------------------------------------------------------


def test_a_zygote_that_is_killed_while_it_forks_costs_nobody_anything(cluster: Cluster) -> None:
    dice = random.Random(11)
    machine = cluster.info()["machine_pid"]
    for number in range(20):
        zygote = zygote_of(cluster)
        # Two stand by: one of three has to be forked.
        domains = [cluster.create(DomainConfig(f"at-{number}-{n}", "hvd:idle")) for n in range(3)]
        time.sleep(dice.uniform(0, 0.006))  # the moment of the death is the point
        os.kill(zygote, signal.SIGKILL)
        cluster.wait_ready(DEADLINE_S, domains)
        names = list(children(machine).values())
        for domain in domains:
            assert domain.incarnation == 1, domain.info().last_death
            assert names.count(f"hvd:{domain.name}"[:15]) == 1
            domain.destroy()
        assert ended(zygote)  # what is found next is another


# ---- everything ------------------------------------------------------------------------------------------------------

TOML = """
[[domain]]
name = "driver"
kernel = "hvd:driver_domain"
driver_domain = true

[[domain]]
name = "guest"
kernel = "hvd:idle"
after = ["driver"]
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_cluster_starts_cleanly_after_everything_was_killed_in_any_order(tmp_path: Path, seed: int) -> None:
    """Machine, broker, zygote, domains, those that stand by, the toolstack: all at once, or with pauses between."""
    dice = random.Random(seed)
    (tmp_path / "cluster.toml").write_text(TOML)
    variables = os.environ | {"HVD_RUN_DIR": str(tmp_path / "run")}
    hvd = [sys.executable, "-m", "hvd"]
    foreground = subprocess.Popen(
        [*hvd, "up", str(tmp_path / "cluster.toml"), "--json"], env=variables, stdout=subprocess.PIPE
    )
    assert foreground.stdout is not None
    assert json.loads(foreground.stdout.readline())
    with Cluster.attach(tmp_path / "run") as cluster:
        machine = cluster.info()["machine_pid"]
    family = [machine, *children(machine), foreground.pid]
    assert len(family) >= 7
    dice.shuffle(family)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):  # it went with another
            os.kill(pid, signal.SIGKILL)
        if seed % 2:
            time.sleep(dice.uniform(0, 0.005))
    foreground.wait(DEADLINE_S)
    foreground.stdout.close()
    assert all(ended(pid) for pid in family)
    subprocess.run([*hvd, "up", "-d", str(tmp_path / "cluster.toml")], env=variables, check=True, timeout=DEADLINE_S)
    with Cluster.attach(tmp_path / "run") as cluster:
        assert [(info.name, info.incarnation, info.ready) for info in cluster.infos().values()] == [
            ("Domain-0", 1, True), ("driver", 1, True), ("guest", 1, True),
        ]  # fmt: skip
        machine = cluster.info()["machine_pid"]
    subprocess.run([*hvd, "down"], env=variables, check=True, timeout=DEADLINE_S)
    assert ended(machine)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["log"]
