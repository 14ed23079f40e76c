"""The broker is killed at chosen lines of what it does: as it boots, recovers, takes a snapshot, carries out a call.

`deadly/sitecustomize.py` kills it. How many lines there are is found out first; then it dies at some of them, from the
first to the last.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hvd.machine.exits import PF_EXITING
from hvd.toolstack.cluster import Cluster, Domain, DomainState, NoSuchDomain
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0
from hvd.transport.messages import DomainConfig, RestartPolicy
from tests.waiting import wait_for

DEADLINE_S = 60.0
DEADLY = Path(__file__).parent / "deadly"
POINTS = 10
TRIES = 20
NEVER = 10**9
FOREVER = RestartPolicy(limit=0)
COUNTING = """
def main(guest):
    '''Counts how often a watch has fired: once when it is set.'''
    store, fired = guest.runtime.store, 0

    def note(path):
        nonlocal fired
        fired += 1
        store.write('data/fired', str(fired))

    store.watch('data/ping', note)
    guest.run_forever()
"""
ASKING = """
import os
from hvd.transport import messages as m
from hvd.transport.ids import DOMID_SELF

def main(guest):
    '''Ports and descriptors, one after the other as it is told to; says which port it got.'''
    call, store = guest.runtime.hypercalls.call, guest.runtime.store

    def ask(path):
        if not store.read('data/ask'):
            store.write('data/got', 'nothing yet')  # the first time, when the watch is set
            return
        value, descriptors = call(m.EvtchnAllocUnbound(DOMID_SELF, 0))
        store.write('data/got', f"{store.read('data/ask').decode()} {value['port']} {len(descriptors)}")
        for descriptor in descriptors:
            os.close(descriptor)

    store.watch('data/ask', ask)
    guest.run_forever()
"""
LINGERING = """
from hvd.domains import hypercalls

AUTO_READY = False

def main(guest):
    '''Asks over its upcall socket for good, and changes what it watches itself when it is told to.'''
    hypercalls.LINGER_S = 100_000.0
    store, told = guest.runtime.store, []
    store.watch('data/ping', lambda path: store.write('data/heard', store.read('data/ping') or b'nothing yet'))
    store.watch('data/go', lambda path: told.append(store.read('data/go')))
    guest.runtime.hypercalls.linger()
    guest.ready()
    while True:
        guest.runtime.wait()
        while told:
            if number := told.pop():
                store.transaction(lambda tx: store.write('data/ping', number, tx))
"""
ALLOCATING = """
import os
from hvd.transport import messages as m

def main(guest):
    call = guest.runtime.hypercalls.call
    while True:
        extent, (descriptor,) = call(m.GnttabAllocate(0, 1))
        os.close(descriptor)
        call(m.GnttabFree(extent))
"""


class Fate:
    """Where the next broker that comes there dies."""

    def __init__(self, plan: Path) -> None:
        self._plan = plan

    def decide(
        self, function: str, line: int, message: type | None = None, *,
        within: str = "", of: signal.Signals = signal.SIGKILL, deaths: int = 0,
    ) -> None:  # fmt: skip
        """`within`: lines count only in what it calls by this name. `deaths`: until so many have died of it."""
        number = None if message is None else message.NUMBER  # type: ignore[attr-defined]
        plan = {"function": function, "line": line, "number": number, "within": within, "signal": of, "deaths": deaths}
        whole = self._plan.with_suffix(".new")
        whole.write_text(json.dumps(plan))
        whole.rename(self._plan)

    @property
    def met(self) -> bool:
        return not self._plan.exists()

    @property
    def escaped(self) -> int | None:
        """How many lines the function had, where it came to its end before it was at that line: it is not always
        equally long. None: whoever ran it died."""
        lines = self._plan.with_suffix(".lines")
        return self.lines() if lines.exists() else None

    def lines(self) -> int:
        """Of what has come to its end."""
        wait_for(self._plan.with_suffix(".lines").exists, "a function that comes to its end")
        text = ""
        while not text:
            text = self._plan.with_suffix(".lines").read_text()
        self._plan.with_suffix(".lines").unlink()
        return int(text)


@pytest.fixture
def fate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fate:
    """For every machine that this test starts."""
    monkeypatch.setenv("PYTHONPATH", str(DEADLY))
    monkeypatch.setenv("HVD_TEST_DEATH", str(tmp_path / "plan"))
    return Fate(tmp_path / "plan")


@pytest.fixture
def cluster(fate: Fate) -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


def restarts(cluster: Cluster) -> int:
    return int(cluster.info()["broker_restarts"])


def points(lines: int) -> list[int]:
    """Some lines from the first to the last."""
    assert lines > POINTS
    return sorted({1 + round(n * (lines - 1) / (POINTS - 1)) for n in range(POINTS)})


def die_everywhere(
    cluster: Cluster, fate: Fate, function: str, act: Callable[[int], None], message: type | None = None
) -> None:
    """`act` a few times to its end, then with a death at each of the points; it checks what came of it.

    An end that comes before the line is not a death: the line is then the last one of that time, and it is tried again.
    `act` gets another number each time."""
    numbers, lengths = itertools.count(), []
    for _ in range(3):
        fate.decide(function, NEVER, message)
        act(next(numbers))
        wait_for(lambda: fate.met, "the function to be called")
        lengths.append(fate.lines())
    for point in points(min(lengths)):
        line = point
        for _ in range(TRIES):
            before = restarts(cluster)
            fate.decide(function, line, message)
            act(next(numbers))
            wait_for(lambda: fate.met, "the function to be called")
            died = restarts(cluster) - before  # whoever answers is behind the function, or comes after who died in it
            escaped = fate.escaped
            assert died == (escaped is None), f"line {line}"
            if escaped is None:
                break
            line = escaped
        else:
            pytest.fail(f"{function} came {TRIES} times to its end before line {line}")


def running(cluster: Cluster, name: str) -> list[int]:
    """Processes of a domain, by what ps shows; not those that will not run again, and are being taken apart."""
    machine, found = cluster.info()["machine_pid"], []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == f"hvd:{name}":
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parent, exiting = int(fields[1]), int(fields[6]) & PF_EXITING
                found += [int(entry.name)] if parent == machine and not exiting else []
    return found


def boot(cluster: Cluster, path: Path, text: str) -> Domain:
    path.write_text(text)
    domain = cluster.create(DomainConfig("guest", str(path), on_crash="preserve"))
    domain.wait_ready(DEADLINE_S)
    return domain


def node(cluster: Cluster, domain: Domain, name: str) -> str:
    try:
        value: bytes = cluster.call(m.StoreRead(0, f"/local/domain/{domain.domid}/data/{name}"))
    except HypercallError:
        return ""
    return value.decode()


# ---- one hypercall ---------------------------------------------------------------------------------------------------


def test_wherever_it_dies_in_a_create_there_is_one_domain_and_one_process(cluster: Cluster, fate: Fate) -> None:
    def create(line: int) -> None:
        domain = cluster.create(DomainConfig(f"at{line}", "hvd:idle"))
        wait_for(lambda: domain.ready, f"{domain.name} to be ready")
        assert domain.incarnation == 1
        assert running(cluster, domain.name) == [domain.pid]

    die_everywhere(cluster, fate, "Broker._answer", create, m.DomctlCreate)
    domids = [info.domid for info in cluster.infos().values()]
    assert domids == list(range(len(domids)))


def test_wherever_it_dies_in_a_destroy_the_domain_is_gone_and_nothing_of_it_is_left(
    cluster: Cluster, fate: Fate
) -> None:
    before = {key: cluster.info()[key] for key in ("ports", "granted_pages", "mappings", "extents", "descriptors")}

    def destroy(line: int) -> None:
        domain = cluster.create(DomainConfig(f"at{line}", "hvd:idle"))
        wait_for(lambda: domain.ready, f"{domain.name} to be ready")
        domain.destroy()
        wait_for(lambda: domain.domid not in cluster.infos(), f"{domain.name} to be gone")
        with pytest.raises(NoSuchDomain):
            cluster.domain(domain.name)
        assert running(cluster, domain.name) == []

    die_everywhere(cluster, fate, "Broker._answer", destroy, m.DomctlDestroy)
    wait_for(lambda: {key: cluster.info()[key] for key in before} == before, "what the domains held to be given back")


def test_wherever_it_dies_in_a_commit_it_is_committed_once_and_the_watch_fires_once(
    cluster: Cluster, fate: Fate, tmp_path: Path
) -> None:
    guest = boot(cluster, tmp_path / "counting.py", COUNTING)
    wait_for(lambda: node(cluster, guest, "fired") == "1", "the watch to be set")
    commits, last = 0, cluster.call(m.StoreTransactionStart())
    cluster.call(m.StoreTransactionEnd(last, commit=False))

    def commit(line: int) -> None:
        nonlocal commits, last
        tx = cluster.call(m.StoreTransactionStart())
        assert tx == last + 1
        last, commits = tx, commits + 1
        cluster.call(m.StoreWrite(tx, f"/local/domain/{guest.domid}/data/ping", str(line).encode()))
        cluster.call(m.StoreTransactionEnd(tx, commit=True))
        assert node(cluster, guest, "ping") == str(line)
        wait_for(lambda: node(cluster, guest, "fired") == str(1 + commits), "the watch to fire")

    die_everywhere(cluster, fate, "Broker._answer", commit, m.StoreTransactionEnd)
    assert node(cluster, guest, "fired") == str(1 + commits)


def test_wherever_it_dies_in_handing_out_descriptors_the_domain_gets_one_port_and_its_descriptors(
    cluster: Cluster, fate: Fate, tmp_path: Path
) -> None:
    guest = boot(cluster, tmp_path / "asking.py", ASKING)
    wait_for(lambda: node(cluster, guest, "got") == "nothing yet", "the watch to be set")
    asked = 0

    def ask(line: int) -> None:
        nonlocal asked
        asked += 1
        cluster.call(m.StoreWrite(0, f"/local/domain/{guest.domid}/data/ask", str(asked).encode()))
        done = f"{asked} {asked + 2} 3"
        wait_for(lambda: node(cluster, guest, "got") == done, lambda: f"{done}: {guest.info()} {guest.console_log()}")
        assert guest.info().state is DomainState.RUNNING

    die_everywhere(cluster, fate, "Broker._answer", ask, m.EvtchnAllocUnbound)


def test_whose_event_comes_while_it_asks_and_the_broker_dies_before_it_rings_is_rung_by_the_next(
    cluster: Cluster, fate: Fate, tmp_path: Path
) -> None:
    path = tmp_path / "lingering.py"
    path.write_text(LINGERING)
    config = DomainConfig("guest", str(path), driver_domain=True, heartbeat_ms=0, on_crash="preserve")
    guest = cluster.create(config)
    guest.wait_ready(DEADLINE_S)
    wait_for(lambda: node(cluster, guest, "heard") == "nothing yet", "the watch to be set")

    def go(number: int) -> None:
        cluster.call(m.StoreWrite(0, f"/local/domain/{guest.domid}/data/go", str(number).encode()))
        wait_for(lambda: fate.met, "the commit")
        wait_for(lambda: node(cluster, guest, "heard") == str(number), "what it has changed to be heard of")

    fate.decide("Broker._answer", NEVER, m.StoreTransactionEnd, within="_tell_events")
    go(1)
    lines = fate.lines()
    for line in range(1, lines + 1):
        fate.decide("Broker._answer", line, m.StoreTransactionEnd, within="_tell_events")
        go(1 + line)
    assert restarts(cluster) == lines


def test_a_hypercall_that_brokers_crash_over_takes_its_sender_down_and_nobody_else(
    cluster: Cluster, fate: Fate, tmp_path: Path
) -> None:
    """A broker that gets SIGSEGV in the middle of a certain hypercall, each time it meets it, has crashed over it."""
    other = cluster.create(DomainConfig("other", "hvd:idle"))
    other.wait_ready(DEADLINE_S)
    guest = boot(cluster, tmp_path / "allocating.py", ALLOCATING)
    fate.decide("Broker._answer", 1, m.GnttabAllocate, within="call", of=signal.SIGSEGV, deaths=2)
    preserved = DomainState.PRESERVED
    wait_for(lambda: guest.state is preserved, lambda: f"{guest.info()}, {restarts(cluster)}, {fate.met}")
    info = guest.info()
    assert info.last_death.startswith("crash: hypercall ")
    assert info.last_death.endswith("was found open by 2 brokers in a row")
    assert fate.met and restarts(cluster) == 2
    assert other.info().incarnation == cluster.domain_info(DOM0).incarnation == 1
    steady = cluster.info()["broker_pid"]
    cluster.create(DomainConfig("next", "hvd:idle")).wait_ready(DEADLINE_S)
    assert cluster.info()["broker_pid"] == steady


# ---- what it does by itself ------------------------------------------------------------------------------------------


def test_wherever_it_dies_in_a_snapshot_no_line_of_the_console_is_lost_or_repeated(
    cluster: Cluster, fate: Fate
) -> None:
    said: list[str] = []

    def say(line: int) -> None:
        """Until the next snapshot has been taken, or died over."""
        while not fate.met:
            cluster.call(m.ConsoleIo(str(len(said))))
            said.append(f"(d0) {len(said)}")

    die_everywhere(cluster, fate, "Ledger.take_snapshot", say)
    told = [line for line in cluster.dmesg() if line.startswith("(d0)")]
    assert told == said[-len(told) :]
    assert len(told) > 100


def test_wherever_it_dies_over_the_news_of_a_death_the_domain_comes_back_once(cluster: Cluster, fate: Fate) -> None:
    domain = cluster.create(DomainConfig("restless", "hvd:idle", on_crash="restart", restart=FOREVER))
    domain.wait_ready(DEADLINE_S)
    deaths = 0

    def die(line: int) -> None:
        nonlocal deaths
        deaths += 1
        pid = domain.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: (domain.incarnation, domain.ready) == (1 + deaths, True), "the next incarnation")
        wait_for(lambda: domain.pid, "its process to be told of")  # a domain may say that it is ready first
        assert running(cluster, "restless") == [domain.pid]

    die_everywhere(cluster, fate, "Broker._read_link", die)


@pytest.mark.parametrize("function", ["Broker._recover", "Recovery.go_on"])
def test_wherever_it_dies_in_its_own_recovery_the_next_has_everything(
    cluster: Cluster, fate: Fate, function: str
) -> None:
    domains = [cluster.create(DomainConfig(f"idle-{n}", "hvd:idle")) for n in range(6)]
    cluster.wait_ready(DEADLINE_S, domains)
    before = [(info.name, info.pid, info.incarnation, info.state) for info in cluster.infos().values()]
    killed = 0

    def kill(line: int) -> None:
        nonlocal killed
        killed += 1
        os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
        wait_for(lambda: fate.met, "the successor")
        at_work = cluster.create(DomainConfig(f"new-{killed}", "hvd:idle"))
        wait_for(lambda: at_work.ready, "a new domain to be ready")
        at_work.destroy()
        wait_for(lambda: at_work.domid not in cluster.infos(), "it to be gone")
        assert [(i.name, i.pid, i.incarnation, i.state) for i in cluster.infos().values()] == before

    fate.decide(function, NEVER)
    kill(0)
    for line in points(fate.lines()):
        was = restarts(cluster)
        fate.decide(function, line)
        kill(line)
        assert restarts(cluster) - was == 1 + (fate.escaped is None), f"line {line}"


def test_wherever_it_dies_while_the_machine_boots_the_machine_is_up(fate: Fate) -> None:
    fate.decide("Broker._boot", NEVER)
    boot_with_a_domain()
    for line in points(fate.lines()):
        fate.decide("Broker._boot", line)
        assert boot_with_a_domain() == 1, f"line {line}"


def boot_with_a_domain() -> int:
    """How often the broker was replaced while a machine came up."""
    with Cluster.build([DomainConfig("guest", "hvd:idle")]) as cluster:
        infos = cluster.infos().values()
        told = [(info.name, info.incarnation, info.ready) for info in infos]
        assert told == [("Domain-0", 1, True), ("guest", 1, True)]
        assert running(cluster, "guest") == [cluster.domain("guest").pid]
        return restarts(cluster)
