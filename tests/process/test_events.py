"""What happens is told once, in order and without gaps: to programs, to `hvd events`, and to Prometheus."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hvd.toolstack.cluster import Cluster, NotRunning
from hvd.toolstack.cluster.events import HELLO, KINDS, MISSED, UNASKED_MAX, LifecycleEvent
from hvd.transport import messages as m
from hvd.transport.end_moments import REAPED_EVENT
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy

DEADLINE_S = 60.0
FOREVER = RestartPolicy(limit=0)
CALLER = """
def main(guest):
    echo = guest.device("echo")
    while True:
        assert echo.call(b"hello")[:5] == b"hello"
        guest.sleep(0.01)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A machine with dom0 alone."""
    with Cluster.build(run_dir=tmp_path / "run") as made:
        yield made


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Start]:
    """Starts `hvd` on the cluster, with pipes; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        variables = os.environ | {"HVD_RUN_DIR": str(cluster.run_dir)}
        running.append(subprocess.Popen(
            [sys.executable, "-m", "hvd", *words], env=variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def restless(cluster: Cluster, name: str = "restless") -> Any:
    domain = cluster.create(DomainConfig(name, "hvd:idle", restart=FOREVER, on_crash="restart"))
    domain.wait_ready(DEADLINE_S)
    return domain


def kill_broker(cluster: Cluster) -> None:
    before = cluster.info()["broker_pid"]
    os.kill(before, signal.SIGKILL)
    assert cluster.info()["broker_pid"] != before


def told_by(process: subprocess.Popen[str], status: int = 0) -> list[dict[str, Any]]:
    """All lines of a process that is about to end."""
    out = rest_of(process)
    assert process.returncode == status
    return [json.loads(line) for line in out.splitlines()]


def told_until_ready(process: subprocess.Popen[str], incarnation: int) -> list[dict[str, Any]]:
    """Its lines up to this: what is published as a broker or the machine is ended need not come."""
    assert process.stdout is not None
    told: list[dict[str, Any]] = []
    while ("ready", "restless", incarnation) not in [(e["event"], e["name"], e["incarnation"]) for e in told[-1:]]:
        line = process.stdout.readline()
        assert line, told
        told.append(json.loads(line))
    return told


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it still writes; `communicate` would leave out what lies in the buffer of an earlier `readline`."""
    assert process.stdout is not None
    assert process.stderr is not None
    out = process.stdout.read()
    assert process.stderr.read() == ""
    process.wait(DEADLINE_S)
    return out


# ---- each once, whatever dies ----------------------------------------------------------------------------------------


class Heard(Exception):
    """A signal was."""


def test_a_signal_that_comes_just_before_a_wait_is_heeded(cluster):
    """Python has looked for one then. So it is where another thread takes it: the wait itself is not interrupted."""

    def hear(number: int, frame: object) -> None:
        raise Heard

    def take() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, hear)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with cluster.events() as events, pytest.raises(Heard):
            taker, until = threading.Timer(0.3, take), time.monotonic() + DEADLINE_S
            taker.start()
            events.next_until(until)
        taker.join()
        assert time.monotonic() < until, "it was heard when the wait was over"
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})



def test_every_event_is_told_once_and_in_order_while_brokers_die(cluster: Cluster, start: Start) -> None:
    domain = restless(cluster)
    listeners = [start("events", "--since", "0") for _ in range(2)]
    first = [json.loads(listener.stdout.readline()) for listener in listeners]  # type: ignore[union-attr]
    dice = random.Random(7)
    for round_ in range(15):
        while (info := domain.info()).incarnation < round_ + 1 or not info.ready:
            time.sleep(0.002)
        assert info.pid is not None, info
        os.kill(info.pid, signal.SIGKILL)
        time.sleep(dice.uniform(0, 0.01))  # the moment of the broker's death is the point
        kill_broker(cluster)
    heard = [[begun, *told_until_ready(listener, round_ + 2)] for listener, begun in zip(listeners, first, strict=True)]
    cluster.down(grace_s=0)
    for listener, begun in zip(listeners, heard, strict=True):
        events = [*begun, *told_by(listener)]
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert events[0]["event"] == "booted"
        for kind in ("died", "starting", "ready"):
            incarnations = [e["incarnation"] for e in events if (e["event"], e["name"]) == (kind, "restless")]
            assert incarnations == list(range(1, len(incarnations) + 1)), kind
            assert len(incarnations) == 16 - (kind == "died")
        brokers = [e["detail"] for e in events if e["event"] == "broker restarted"]
        assert brokers == [f"{number}: killed by SIGKILL" for number in range(1, 16)]
        assert [e["at_ns"] for e in events] == sorted(e["at_ns"] for e in events)


def test_who_does_not_read_is_told_how_much_he_has_missed_and_misses_nothing_else(cluster: Cluster) -> None:
    with cluster.events() as events:
        for number in range(2500):
            cluster.call(m.ConsoleIo(str(number)))
        heard = read_until(events, lambda event: event.detail == "2499")
    at = heard[0].number
    for event in heard:
        if event.event == MISSED:
            at += int(event.detail.split()[0])
        assert event.number == at, event
        at += event.event != MISSED
        at = at if event.event != MISSED else event.number + 1
    consoles = [int(event.detail) for event in heard if event.event == "console"]
    missed = sum(int(event.detail.split()[0]) for event in heard if event.event == MISSED)
    assert consoles == sorted(set(consoles))
    assert len(consoles) + missed == 2500


def test_the_last_of_more_events_than_the_publisher_keeps_for_a_reader_is_heard_without_another(
    cluster: Cluster,
) -> None:
    """ZeroMQ drops what is beyond its high-water mark in silence, the end of it: no later number tells of the gap."""
    with cluster.events() as events:
        for number in range(UNASKED_MAX):
            cluster.call(m.ConsoleIo(str(number)))
        events._socket.recv()  # as if it had been dropped
        for number in range(UNASKED_MAX, 3 * UNASKED_MAX):
            cluster.call(m.ConsoleIo(str(number)))
        heard = read_until(events, lambda event: event.detail == str(3 * UNASKED_MAX - 1))
    numbers = [event.number for event in heard if event.event == "console"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def read_until(events: Any, last: Callable[[LifecycleEvent], bool]) -> list[LifecycleEvent]:
    heard: list[LifecycleEvent] = []
    while not heard or not last(heard[-1]):
        heard.append(events.next(DEADLINE_S))
    return [event for event in heard if event.event != HELLO]


def test_who_hears_a_boot_hears_what_happened_before_anybody_listened(cluster: Cluster) -> None:
    heard: list[LifecycleEvent] = []
    cluster.boot(hear=heard.append)  # of a machine that has booted already
    assert ("Domain-0", "ready") in [(event.name, event.event) for event in heard]
    assert [event.number for event in heard] == [*range(1, len(heard) + 1)]


def test_after_a_reboot_numbers_begin_anew(cluster: Cluster) -> None:
    with cluster.events(after=0) as events:
        before = read_until(events, lambda event: event.event == "ready")
        cluster.reboot(grace_s=0)
        after = read_until(events, lambda event: event.event == "ready")
    assert [event.number for event in before] == list(range(1, len(before) + 1))
    begun = [event.event for event in after].index("booted")
    assert [event.number for event in after[begun:]] == list(range(1, len(after) - begun + 1))


# ---- the command -----------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_it_quietly(cluster: Cluster, start: Start) -> None:
    listener = start("events", "--since", "0", "--no-json")
    assert listener.stdout is not None
    assert listener.stdout.readline().endswith("  booted\n")
    while not (line := listener.stdout.readline()).endswith("  Domain-0 (0) ready\n"):
        assert line
    listener.send_signal(signal.SIGINT)
    assert rest_of(listener) == ""
    assert listener.returncode == 0


def test_events_are_chosen_by_domain_by_kind_and_by_time(cluster: Cluster, start: Start) -> None:
    one, two = restless(cluster, "one"), restless(cluster, "two")
    for domain in (one, two, one):
        domain.kill()
        domain.wait_ready(DEADLINE_S)

    def chosen(*words: str) -> list[tuple[str, str]]:
        return [(event["name"], event["event"]) for event in told_by(start("events", "--no-follow", *words))]

    with cluster.events(0) as heard:  # what is told last of each death, a while after it
        told = iter(lambda: heard.next(DEADLINE_S), None)
        reaped = [next(event.name for event in told if event.event == REAPED_EVENT) for _ in range(3)]
    assert sorted(reaped) == ["one", "one", "two"]
    assert chosen("one", "--kind", "died") == [("one", "died")] * 2
    assert chosen(str(two.domid), "--kind", "died,ready") == [("two", "ready"), ("two", "died"), ("two", "ready")]
    assert chosen("dom0", "--kind", "ready") == [("Domain-0", "ready")]
    everything = told_by(start("events", "--no-follow"))
    last = everything[-1]["number"]
    assert told_by(start("events", "--no-follow", "--since", str(last - 1))) == everything[-1:]
    assert chosen("--since", "0s") == []
    assert chosen("--since", "2h") == [(event["name"], event["event"]) for event in everything]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--kind", "dead"], "--kind: expected one of created, starting"),
        (["--since", "yesterday"], "--since: expected an event's number"),
        (["--since", "-1"], "--since: expected an event's number"),
        (["nosuch"], "NAME: expected a domain that there is or was: Domain-0, found 'nosuch'"),
        (["dom0", "77", "--no-follow"], "NAME: expected a domain that there is or was: Domain-0, found '77'"),
    ],
)
def test_bad_input_says_what_was_expected(start: Start, words: list[str], text: str) -> None:
    process = start("events", *words)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (2, "")
    assert text in err


def test_who_has_gone_and_is_told_of_yet_may_be_asked_for(cluster: Cluster, start: Start) -> None:
    domain = restless(cluster, "gone")
    domain.destroy()
    for who in ("gone", str(domain.domid)):
        events = [event["event"] for event in told_by(start("events", "--no-follow", who))]
        assert events[0] == "created"
        assert "destroyed" in events


def test_every_kind_that_the_hypervisor_announces_is_a_kind_to_choose() -> None:
    import re

    import hvd.broker

    source = "".join(path.read_text() for path in Path(hvd.broker.__file__).parent.glob("*.py"))
    announced = set(re.findall(r'\bannounce\("([^"]+)"', source))
    assert len(announced) > 12
    assert announced <= set(KINDS)
    assert set(KINDS) - announced == {MISSED, REAPED_EVENT}


# ---- metrics ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(start: Start) -> Iterator[str]:
    """The URL of an `hvd metrics` that runs."""
    process = start("metrics", "--port", "0", "--json")
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]


def scrape(url: str) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and the values of its labels, which are in the order of their names."""
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.name.startswith("hvd_") for family in families)
    return {
        (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
    }  # fmt: skip


def scrape_until(url: str, condition: Callable[[dict[tuple[str, ...], float]], bool]) -> dict[tuple[str, ...], float]:
    until = time.monotonic() + DEADLINE_S
    while not condition(found := scrape(url)):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


def test_a_scrape_tells_restarts_recoveries_channels_rings_and_quotas(
    cluster: Cluster, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    driver = cluster.create(DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER))
    guest = cluster.create(
        DomainConfig("guest", str(tmp_path / "caller.py"), devices=[DeviceConfig("echo", 0, "driver")], restart=FOREVER)
    )
    guest.wait_ready(DEADLINE_S)
    for _ in range(3):
        driver.kill()
        driver.wait_ready(DEADLINE_S)
    kill_broker(cluster)
    with serving(start) as url:
        found = scrape_until(url, lambda found: found.get(("hvd_domain_recovery_seconds_count", "driver")) == 3)
        who = ("driver", str(driver.domid))
        assert found["hvd_domain_restarts_total", *who] == 3
        assert found["hvd_domain_ready", *who] == 1
        assert found[("hvd_broker_restarts_total",)] == 1
        assert 0 < found["hvd_domain_recovery_seconds_sum", "driver"] < DEADLINE_S
        assert found["hvd_domain_recovery_seconds_bucket", "driver", "+Inf"] == 3
        asker = ("guest", str(guest.domid))
        ring = ("echo/0", *asker)

        def sent(found: dict[tuple[str, ...], float]) -> float:
            mine = ("hvd_event_channel_events_sent_total", *asker)
            return sum(value for name, value in found.items() if name[:3] == mine)

        later = scrape_until(url, lambda later: later.get(("hvd_ring_responses_total", *ring), 0) > 0 < sent(later))
        assert later["hvd_ring_requests_total", *ring] > 0
        assert later["hvd_quota_used", *who, "event_channels"] >= 2
        assert found["hvd_quota_limit", *who, "event_channels"] == 1023
        assert found["hvd_policy_denials_total", *who] == 0


def test_a_scrape_waits_for_the_next_broker_and_the_server_ends_with_the_machine(
    cluster: Cluster, start: Start
) -> None:
    with serving(start) as url:
        broker = cluster.info()["broker_pid"]
        os.kill(broker, signal.SIGKILL)
        assert scrape(url)[("hvd_broker_restarts_total",)] == 1
        cluster.down(grace_s=0)
        with pytest.raises(NotRunning):
            Cluster.attach(cluster.run_dir)


def test_nobody_but_this_host_can_ask(start: Start) -> None:
    with serving(start) as url:
        port = int(url.rpartition(":")[2].split("/")[0])
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {row[1] for row in listening if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
        assert addresses == {f"0100007F:{port:04X}"}
        assert url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_bad_input(cluster: Cluster, start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("metrics", "--port", str(taken.getsockname()[1]))
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "choose another with --port" in err


def test_without_the_package_the_line_that_installs_it_is_told(cluster: Cluster) -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; from hvd.toolstack.cli.app import run; run()"
    result = subprocess.run(
        [sys.executable, "-c", program, "metrics"], env=os.environ | {"HVD_RUN_DIR": str(cluster.run_dir)},
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert f"{sys.executable} -m pip install 'prometheus-client>=0.20'" in result.stderr
