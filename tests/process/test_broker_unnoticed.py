"""A broker dies, and who asks nothing does not run for it: no thread of libzmq's, no handler. Calls are made once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DeviceConfig, DomainConfig
from tests.waiting import wait_for, wait_for_consoles

DEADLINE_S = 60.0
BROKERS = 3
"""That die in a row: whoever is woken by one may not have been on a CPU yet when it is looked at."""
TELLING = """
from hvd.transport import messages as m

def main(guest):
    '''Tells on request how often it was woken, with a number that shows a call that was carried out twice or never.'''
    runtime, store = guest.runtime, guest.runtime.store
    def tell(path):
        asked = store.read('data/ask')
        if asked is not None:
            number = runtime.hypercalls.call(m.StoreTransactionStart())
            runtime.hypercalls.call(m.StoreTransactionEnd(number, False))
            woken = runtime.waiter.statistics().delivered
            store.write('data/told', f'{asked.decode()} {number} {woken}')

    store.watch('data/ask', tell)
    guest.run_forever()
"""

PATIENT = """
from hvd.transport import hypercalls

def main(guest):
    '''Asks without end, and sends no call again because it has waited long.'''
    hypercalls.AGAIN_LEAST_S = guest.runtime.hypercalls.requests.deadline_s = 100_000.0
    rounds = 0
    while True:
        rounds += 1
        guest.runtime.store.write('data/rounds', str(rounds))
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """With none that has a heartbeat, which wakes whoever has one."""
    with Cluster.build([DomainConfig("Domain-0", "hvd:dom0", driver_domain=True, heartbeat_ms=0)]) as made:
        yield made


@pytest.fixture
def teller(cluster: Cluster, tmp_path: Path) -> Any:
    """A guest with a device, whose driver domain has a spare."""
    config = DomainConfig("driver", "hvd:driver_domain", driver_domain=True, spare=True, heartbeat_ms=0)
    driver = cluster.create(config)
    driver.wait_ready(DEADLINE_S)
    path = tmp_path / "telling.py"
    path.write_text(TELLING)
    devices = [DeviceConfig("echo", 0, "driver")]
    guest = cluster.create(DomainConfig("teller", str(path), devices=devices, heartbeat_ms=0, on_crash="preserve"))
    guest.wait_ready(DEADLINE_S)
    wait_for(lambda: driver.info().spare == "stands by", "the spare")
    wait_for_consoles(cluster)  # which wakes each domain once
    return guest


class Asker:
    """Asks the teller, and has it answer with a hypercall that changes something."""

    def __init__(self, cluster: Cluster, guest: Any) -> None:
        self._cluster, self._home, self._asked = cluster, f"/local/domain/{guest.domid}/data", 0

    def ask(self) -> tuple[int, int]:
        """The number of its call, and how often it had been woken by then."""
        self._asked += 1
        self._cluster.call(m.StoreWrite(0, f"{self._home}/ask", b"%d" % self._asked))
        wait_for(lambda: self._told()[0] == self._asked, "what the guest tells")
        return self._told()[1], self._told()[2]

    def _told(self) -> list[int]:
        try:
            return [int(word) for word in self._cluster.call(m.StoreRead(0, f"{self._home}/told")).split()]
        except HypercallError:
            return [0]


def replace(cluster: Cluster) -> None:
    """Kill the broker, and wait until the next one has taken over every domain: only then it makes something ahead."""
    broker = cluster.info()["broker_pid"]
    os.kill(broker, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != broker, "another broker")
    wait_for(lambda: cluster.info()["made_ahead"], "it to have taken over all domains")


def domains_pids(cluster: Cluster) -> list[int]:
    """Of all processes that are domains', spares too."""
    children = Path(f"/proc/{cluster.info()['machine_pid']}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().startswith("hvd:")]


def switches(pid: int) -> dict[str, int]:
    """How often each thread of libzmq's in this process has left a CPU, by number and name; empty: it has none."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("ZMQ"):
            lines = [line for line in (task / "status").read_text().splitlines() if "ctxt_switches" in line]
            found[f"{task.name} {name}"] = sum(int(line.split()[1]) for line in lines)
    return found


def is_asleep(pid: int) -> bool:
    """Every thread of this process: none has anything left to do that it has begun."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "S" for task in tasks)


def switches_at_rest(pids: list[int]) -> dict[int, dict[str, int]]:
    """Of those who have threads of libzmq's, when nobody has run from one look to the next."""
    found: dict[int, dict[str, int]] = {}

    def look() -> bool:
        before = dict(found)
        found.clear()
        found.update({pid: its for pid in pids if (its := switches(pid))})
        return found == before and all(is_asleep(pid) for pid in pids)

    wait_for(look, lambda: f"all threads to sleep: {found}")
    return found


def held_open(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_no_thread_of_libzmqs_runs_in_any_domain_when_brokers_die(cluster: Cluster, teller: Any) -> None:
    asker = Asker(cluster, teller)
    asker.ask()
    wait_for(lambda: cluster.info()["made_ahead"], "the broker to have nothing to do")
    before = switches_at_rest(domains_pids(cluster))
    assert len(before) == 4, "dom0, the driver domain, its spare, the guest"
    for _ in range(BROKERS):
        replace(cluster)
    assert {pid: switches(pid) for pid in before} == before


def test_no_port_is_raised_and_no_event_told_again_when_brokers_die_and_the_next_call_is_made_once(
    cluster: Cluster, teller: Any
) -> None:
    asker = Asker(cluster, teller)
    asker.ask()
    first, second = asker.ask(), asker.ask()
    each = second[1] - first[1]
    for _ in range(BROKERS):
        replace(cluster)
    third = asker.ask()
    assert [number for number, _ in (first, second, third)] == [first[0], first[0] + 1, first[0] + 2]
    assert third[1] - second[1] == each
    replace(cluster)
    assert asker.ask() == (third[0] + 1, third[1] + each)


def test_who_waits_for_a_broker_that_dies_is_told_so_by_the_next_one(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "patient.py"
    path.write_text(PATIENT)
    guest = cluster.create(DomainConfig("patient", str(path), heartbeat_ms=0, on_crash="preserve"))

    def rounds() -> int:
        try:
            return int(cluster.call(m.StoreRead(0, f"/local/domain/{guest.domid}/data/rounds")))
        except HypercallError:
            return 0

    wait_for(lambda: rounds() > 0, "its first round")
    for _ in range(10):
        broker, before = cluster.info()["broker_pid"], rounds()
        os.kill(broker, signal.SIGKILL)
        wait_for(lambda broker=broker: cluster.info()["broker_pid"] != broker, "another broker")  # type: ignore[misc]
        wait_for(lambda before=before: rounds() > before + 1, "its next round")  # type: ignore[misc]


def test_the_machine_keeps_no_connection_of_a_domain_that_has_gone(
    cluster: Cluster, teller: Any, tmp_path: Path
) -> None:
    machine = cluster.info()["machine_pid"]

    def come_and_go(meanwhile: Callable[[], None]) -> None:
        path = tmp_path / "telling.py"
        guest = cluster.create(DomainConfig("passing", str(path), heartbeat_ms=0))
        guest.wait_ready(DEADLINE_S)
        Asker(cluster, guest).ask()
        meanwhile()
        guest.destroy()
        guest.wait_gone(DEADLINE_S)
        wait_for(lambda: cluster.info()["made_ahead"], "the broker to have nothing to do")

    come_and_go(lambda: None)
    before = held_open(machine)
    come_and_go(lambda: None)
    come_and_go(lambda: replace(cluster))
    wait_for(lambda: held_open(machine) <= before, lambda: f"{held_open(machine)} descriptors to become {before}")
