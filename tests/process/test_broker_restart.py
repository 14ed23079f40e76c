"""A broker that dies again and again: every hypercall completes exactly once, and nothing that was there is lost."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, Port
from hvd.transport.limits import DESCRIPTORS_PENDING_MAX
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from tests.waiting import wait_for

DEADLINE_S = 60.0
FOREVER = RestartPolicy(limit=0)

BUSY = """
import os
from hvd.transport import messages as m
from hvd.transport.ids import DOMID_SELF

def main(guest):
    '''Makes hypercalls whose answers tell whether one was carried out twice or not at all.'''
    call = guest.runtime.hypercalls.call
    ports, rounds, last = [], 0, 0
    while guest.runtime.store.read('data/stop') is None:
        tx = call(m.StoreTransactionStart())
        assert tx == last + 1, f'transaction {tx} after {last}'
        last = tx
        call(m.StoreWrite(tx, 'data/rounds', str(rounds).encode()))
        call(m.StoreTransactionEnd(tx, True))
        value, descriptors = call(m.EvtchnAllocUnbound(DOMID_SELF, 0))
        for descriptor in descriptors:
            os.close(descriptor)
        assert len(descriptors) == 3, descriptors
        expected = next(port for port in range(1, 100) if port not in [1, 2, *ports])
        assert value['port'] == expected, f"port {value['port']}, not {expected}"
        ports.append(value['port'])
        if len(ports) > 20:
            call(m.EvtchnClose(ports.pop(rounds % 20)))
        extent, (descriptor,) = call(m.GnttabAllocate(0, 2))
        os.close(descriptor)
        ref = call(m.GnttabShare(extent, 0, 2))
        assert ref == 8 + 2 * rounds, f'ref {ref} in round {rounds}'
        call(m.GnttabEndAccess(ref, 2))
        call(m.GnttabFree(extent))
        rounds += 1
    guest.ready()
    for port in ports:
        call(m.EvtchnClose(port))
    guest.runtime.store.write('data/report', f'{rounds} rounds')
    guest.run_forever()
"""
COMING_TO_LIFE = f"AUTO_READY = False\n{BUSY}"
"""It says that it is ready when it is told to stop: until then it calls over its upcall socket."""

ANSWERING = """
def main(guest):
    store = guest.runtime.store
    store.watch('data/ping', lambda path: store.write('data/pong', store.read('data/ping') or b''))
    guest.run_forever()
"""

DEAF = """
import os
from hvd.transport import messages as m
from hvd.transport.codec import pack_request, unpack_reply
from hvd.transport.ids import DOMID_SELF

def main(guest):
    '''Asks for descriptors and never reads them, then reads them.'''
    socket, upcalls = guest.runtime.hypercalls.connection._socket, guest.runtime._upcalls
    sequence, descriptors = 10**6, 0

    def ask(received):
        nonlocal sequence
        sequence += 1
        socket.send(pack_request(m.EvtchnAllocUnbound(DOMID_SELF, 0), sequence, 0, received))
        return unpack_reply(socket.recv())

    before = upcalls.descriptors_received
    while True:
        _, code, text, count = ask(before)
        if code:
            break
        descriptors += count
    report = [descriptors, code, text]
    upcalls.read_all()
    report.append(upcalls.descriptors_received - before)
    report.append(ask(upcalls.descriptors_received)[1])
    guest.runtime.hypercalls.requests.sequence = sequence
    guest.runtime.store.write('data/report', repr(report))
    guest.run_forever()
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str], str]:
    """Writes a kernel's text to a file of its own; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / f"kernel-{len(list(tmp_path.glob('kernel-*')))}.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A machine with dom0 alone; whatever a test's brokers died of is on its own log."""
    with Cluster.build() as made:
        yield made


def boot(cluster: Cluster, path: str, name: str = "guest", **fields: Any) -> Any:
    """A domain that does not come back when it dies of a failed assertion."""
    domain = cluster.create(DomainConfig(name, path, **{"on_crash": "preserve", "restart": FOREVER, **fields}))
    domain.wait_ready(DEADLINE_S)
    return domain


def kill_broker(cluster: Cluster, number: int = signal.SIGKILL) -> int:
    """End the broker; the pid of the next one."""
    pid = cluster.info()["broker_pid"]
    os.kill(pid, number)
    wait_for(lambda: cluster.info()["broker_pid"] != pid, "another broker")
    return int(cluster.info()["broker_pid"])


def read(cluster: Cluster, domain: Any, node: str) -> str | None:
    try:
        return str(cluster.call(m.StoreRead(0, f"/local/domain/{domain.domid}/{node}")).decode())
    except HypercallError:
        return None


def write(cluster: Cluster, domain: Any, node: str, value: str) -> None:
    cluster.call(m.StoreWrite(0, f"/local/domain/{domain.domid}/{node}", value.encode()))


def report_of(cluster: Cluster, domain: Any, node: str = "data/report") -> str:
    """What a guest reports at its end; a failed assertion in it fails the test with its own words."""

    def told() -> bool:
        info = domain.info()
        assert info.state is DomainState.RUNNING, info.last_death
        return read(cluster, domain, node) is not None

    wait_for(told, f"{node} of {domain.name}")
    return read(cluster, domain, node) or ""


def store_dump(cluster: Cluster, path: str = "/") -> dict[str, Any]:
    """Every node with its value and permissions."""
    found = {path: (cluster.call(m.StoreRead(0, path)), cluster.call(m.StoreGetPerms(0, path)))}
    for child in cluster.call(m.StoreDirectory(0, path)):
        found |= store_dump(cluster, f"{path.rstrip('/')}/{child}")
    return found


def has_made(cluster: Cluster, domain: Any, rounds: int) -> bool:
    return int(read(cluster, domain, "data/rounds") or 0) > rounds


def everything(cluster: Cluster) -> dict[str, Any]:
    """All that a broker's death must not change."""
    info = cluster.info()
    passing = {"uptime_ns": None, "heartbeat": None}  # measured anew, not remembered
    rows = [{**row, **passing} for row in cluster.call(m.DomctlList())]
    ports = {
        (row["domid"], port): cluster.call(m.EvtchnStatus(DomId(row["domid"]), Port(port)))
        for row in rows
        for port in range(1, 30)
    }
    counts = {key: info[key] for key in ("ports", "granted_pages", "mappings", "extents", "domains", "descriptors")}
    return {"counts": counts, "domains": rows, "ports": ports, "store": store_dump(cluster), "dmesg": cluster.dmesg()}


def has_settled(cluster: Cluster, device: tuple[str, str]) -> bool:
    """Whether all consoles are served, and the directories of both ends of a device say that it is connected."""
    consoles = all(read(cluster, domain, "console/tty") for domain in cluster.domains())
    return consoles and all(cluster.call(m.StoreReadAll(end)).get("state") == b"4" for end in device)


def processes_of(cluster: Cluster, name: str) -> list[int]:
    """Whoever goes by this name among its machine's children."""
    found, machine = [], cluster.info()["machine_pid"]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1] if entry.name.isdigit() else ""
            if parent == str(machine) and (entry / "comm").read_text().strip() == f"hvd:{name}":
                found.append(int(entry.name))
    return found


# ---- nothing is lost -------------------------------------------------------------------------------------------------


def test_a_new_broker_knows_every_domain_port_grant_mapping_and_node(cluster: Cluster) -> None:
    driver = DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER)
    guest = DomainConfig("guest", "hvd:idle", devices=[DeviceConfig("echo", 0, "driver")], restart=FOREVER)
    serving, served = (cluster.create(config) for config in (driver, guest))
    for domain in (serving, served):
        domain.wait_ready(DEADLINE_S)
    home, back = (f"/local/domain/{domid}" for domid in (served.domid, serving.domid))
    ends = f"{home}/device/echo/0", f"{back}/backend/echo/{served.domid}/0"
    wait_for(lambda: has_settled(cluster, ends), lambda: f"all to be served: {store_dump(cluster)}")
    cluster.call(m.ConsoleIo("before"))
    cluster.call(m.StoreWrite(0, "/tool/note", b"kept"))
    before = everything(cluster)
    for _ in range(3):
        kill_broker(cluster)
        assert everything(cluster) == before
    assert before["counts"]["mappings"] >= 1
    assert before["store"]["/tool/note"][0] == b"kept"


def test_a_directory_of_any_depth_survives_a_broker(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    with Cluster.build([DomainConfig("guest", "hvd:idle")], run_dir=deep) as cluster:
        kill_broker(cluster)
        cluster.create(DomainConfig("other", "hvd:idle")).wait_ready(DEADLINE_S)


# ---- exactly once ----------------------------------------------------------------------------------------------------


class Typist(threading.Thread):
    """A toolstack program that writes numbered lines on the hypervisor's console until told to stop."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._cluster = Cluster.attach(run_dir)
        self._enough = threading.Event()
        self.lines = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._enough.is_set():
                self._cluster.call(m.ConsoleIo(f"line {self.lines}"))
                self.lines += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the test that waits for this thread tells it
            self.error = error

    def stop(self) -> int:
        self._enough.set()
        self.join(DEADLINE_S)
        assert not self.is_alive()
        self._cluster.close()
        assert self.error is None, self.error
        return self.lines


@pytest.mark.parametrize("text", [BUSY, COMING_TO_LIFE], ids=["ready", "coming to life"])
def test_every_hypercall_of_guests_and_programs_is_carried_out_once_whenever_the_broker_dies(
    cluster: Cluster, kernel: Callable[[str], str], text: str
) -> None:
    path = kernel(text)
    guests = [cluster.create(DomainConfig(f"busy-{n}", path, on_crash="preserve")) for n in range(2)]
    for guest in guests:
        wait_for(lambda guest=guest: read(cluster, guest, "data/rounds") is not None, "a first round")  # type: ignore[misc]
    typist = Typist(cluster.run_dir)
    typist.start()
    dice = random.Random(5)
    brokers = {cluster.info()["broker_pid"]}
    for _ in range(25):
        time.sleep(dice.uniform(0.005, 0.06))  # the moment of death is the point, nothing waits for this
        brokers.add(kill_broker(cluster))
    lines = typist.stop()
    assert len(brokers) == 26
    for guest in guests:
        wait_for(partial(has_made, cluster, guest, rounds=20), f"{guest.name} to make 20 rounds")
        write(cluster, guest, "data/stop", "1")
        guest.wait_ready(DEADLINE_S)
        rounds = int(report_of(cluster, guest).split()[0])
        assert rounds > 20
        assert read(cluster, guest, "data/rounds") == str(rounds - 1)
        assert guest.info().incarnation == 1
    told = [line.removeprefix("(d0) line ") for line in cluster.dmesg() if line.startswith("(d0) line ")]
    assert told == [str(n) for n in range(lines)][-len(told) :]
    consoles = 1 + len(guests)
    wait_for(lambda: cluster.info()["mappings"] == consoles, "each console to be mapped, and nothing else")
    assert cluster.info()["granted_pages"] == consoles


def test_watch_events_go_on_arriving(cluster: Cluster, kernel: Callable[[str], str]) -> None:
    guest = boot(cluster, kernel(ANSWERING))
    for n in range(15):
        write(cluster, guest, "data/ping", str(n))
        kill_broker(cluster)
        wait_for(lambda n=n: read(cluster, guest, "data/pong") == str(n), f"the answer to {n}")  # type: ignore[misc]
        assert guest.info().incarnation == 1


def test_a_domain_that_reads_no_descriptors_is_told_so_until_it_does(
    cluster: Cluster, kernel: Callable[[str], str]
) -> None:
    """DESCRIPTORS_PENDING_MAX is the most that may wait; the call that comes then is refused whole."""
    guest = boot(cluster, kernel(DEAF))
    descriptors, code, text, taken, after = eval(report_of(cluster, guest))
    assert DESCRIPTORS_PENDING_MAX <= descriptors < DESCRIPTORS_PENDING_MAX + 3
    assert (code, after) == (11, 0)
    assert "read them first" in text
    assert taken == descriptors


# ---- deaths while there is no broker ---------------------------------------------------------------------------------


def test_a_death_that_no_broker_saw_is_learned_with_its_reason(cluster: Cluster) -> None:
    guest = cluster.create(DomainConfig("guest", "hvd:idle", on_crash="preserve"))
    guest.wait_ready(DEADLINE_S)
    pid, broker = guest.pid, cluster.info()["broker_pid"]
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    os.kill(broker, signal.SIGSTOP)
    os.kill(pid, signal.SIGSEGV)
    assert select.select([pidfd], [], [], DEADLINE_S)[0]
    os.close(pidfd)
    with contextlib.suppress(ProcessLookupError):  # the machine ends a broker that it finds stopped for some seconds
        os.kill(broker, signal.SIGKILL)
    assert guest.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death == "killed by SIGSEGV"


def test_a_domain_and_the_broker_that_die_together_come_back_each_once(cluster: Cluster) -> None:
    driver = cluster.create(DomainConfig("restless", "hvd:driver_domain", driver_domain=True, restart=FOREVER))
    driver.wait_ready(DEADLINE_S)
    dice = random.Random(9)
    for n in range(12):
        pid, broker = driver.pid, cluster.info()["broker_pid"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        time.sleep(dice.uniform(0, 0.012))  # somewhere between the death and the next incarnation's first words
        os.kill(broker, signal.SIGKILL)
        wait_for(lambda n=n: (driver.info().incarnation, driver.ready) == (n + 2, True), "the next")  # type: ignore[misc]
        wait_for(lambda: processes_of(cluster, "restless") == [driver.pid], "the dead one, who can do nothing, to go")


def test_domains_created_while_brokers_die_run_once_each(cluster: Cluster) -> None:
    broker_dies = threading.Event()

    def killer() -> None:
        dice = random.Random(3)
        with Cluster.attach(cluster.run_dir) as other:
            while not broker_dies.is_set():
                kill_broker(other)
                time.sleep(dice.uniform(0, 0.03))

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        domains = [cluster.create(DomainConfig(f"made-{n}", "hvd:idle")) for n in range(12)]
        for domain in domains:
            wait_for(lambda domain=domain: domain.ready, f"{domain.name} to be ready")  # type: ignore[misc]
    finally:
        broker_dies.set()
        thread.join(DEADLINE_S)
    assert [domain.domid for domain in domains] == list(range(1, 13))
    for domain in domains:
        assert domain.incarnation == 1
        assert processes_of(cluster, domain.name) == [domain.pid]


# ---- coming to life --------------------------------------------------------------------------------------------------

LARGE = """
from hvd.transport.upcalls import REPLY_BYTES_MAX

AUTO_READY = False

def main(guest):
    store, size = guest.runtime.store, 2000
    count = REPLY_BYTES_MAX // size + 1
    for number in range(count):
        store.write(f'data/large/{number}', b'x' * size)
    found = store.read_all('data/large')
    assert found == {str(number): 'x' * size for number in range(count)}, found
    store.write('data/report', f'{count * size} bytes')
    guest.ready()
    guest.run_forever()
"""


def test_a_domain_that_comes_to_life_reads_more_than_its_upcall_socket_carries(
    cluster: Cluster, kernel: Callable[[str], str]
) -> None:
    guest = boot(cluster, kernel(LARGE))
    assert read(cluster, guest, "data/report") == "34000 bytes"
