"""`hvd bench`: every bench runs, prints what it should, and ends with the right status; stalls are not hidden."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from hvd.toolstack.bench.births import LIVED, STANDBYS, measure_births
from hvd.toolstack.bench.cost import system_calls_per_round_trip
from hvd.toolstack.bench.figures import NANOSECONDS
from hvd.toolstack.bench.measured import Pair
from hvd.toolstack.bench.net_deaths import ECHO, TALK, TCP, measure_net_deaths
from hvd.toolstack.bench.net_programs import BRIDGE, CHAIN, GUESTS, SWITCH, measure_net_programs
from hvd.toolstack.bench.net_ways import OVS_PATH
from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.bench.run import Run, cpus_from
from hvd.toolstack.bench.scale import measure_scale
from hvd.toolstack.bench.suite import BENCHES
from hvd.toolstack.bench.traced import traced
from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.histogram import from_text
from hvd.transport.hypercalls import HypercallError
from hvd.transport.sandbox import LAYERS
from tests.nobody import nobody
from tests.waiting import wait_for

DEADLINE_S = 280
QUICK = [name for name in BENCHES if name not in ("scale", "ipc")]
"""Two hundred domains are too many for a test: fewer are made below. The longest one runs there too, without a peer."""
needs_tun = pytest.mark.skipif(
    not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="there is no /dev/net/tun for us"
)
ROW = {"bench", "name", "unit", "wait", "n", "note"}
GOAL = {"bench", "name", "value", "unit", "goal", "relation", "met"}


def hvd_bench(*words, path="") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hvd", "bench", *words]
    environment = {"PATH": "/bin:/usr/bin", "PYTHONPATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def told_by(result):
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    told = json.loads(result.stdout)
    assert told["schema"] == "hvd-bench/1"
    assert {"cpu", "cpus", "kernel", "governor", "virtual"} <= set(told["machine"])
    assert all(set(row) >= ROW for row in told["rows"])
    assert all(set(goal) == GOAL for goal in told["goals"])
    for row in told["rows"]:
        assert row["n"] > 0 or row["note"].startswith("absent"), row
        if "hdr" in row:
            in_unit = from_text(row["hdr"]).percentile(50) / NANOSECONDS[row["unit"]]
            assert in_unit == pytest.approx(row["p50"], rel=0.002, abs=0.001), row
    return told


@pytest.mark.parametrize("name", QUICK)
def test_a_bench_tells_one_object(name):
    kills = ["--kills", "2"] if name == "recovery" else []
    told = told_by(hvd_bench(name, "--duration", "0.1", "--json", "--seed", "3", *kills))
    assert told["command"]["seed"] == 3
    assert {row["bench"] for row in told["rows"]} == {name}
    assert ("verdict" in told) == (name == "recovery")
    assert all(goal["met"] is None for goal in told["goals"] if goal["name"].startswith("throughput lost"))


FEW = 100
"""Of hundreds of thousands of round trips: an end that waits longer than it looks, as its peer got no CPU, sleeps."""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it takes two CPUs")
def test_a_hot_round_trip_makes_no_system_call_in_any_sandbox_and_so_asks_no_policy():
    """Whoever asks the broker anything makes one."""
    run = Run(1, 1, cpus_from(None), lambda _: None)
    with Cluster.build(name="hot", policy="default") as cluster:
        pair = Pair(cluster, "pair", run.here, run.there)
        assert all("seccomp" in row["in_force"] and "landlock" in row["in_force"] for row in cluster.sandboxes())
        (figure,) = system_calls_per_round_trip(run, pair)
    if not figure.n:
        pytest.skip(figure.note)
    assert (figure.p50 or 0) < FEW, figure.note


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it takes two CPUs")
def test_a_sandbox_adds_no_system_call_to_a_hot_round_trip():
    """Beside a pair without any layer."""
    run, counts = Run(1, 1, cpus_from(None), lambda _: None), {}
    with Cluster.build(name="hot") as cluster:
        for name, off in (("within", ()), ("without", tuple(LAYERS))):
            pair = Pair(cluster, name, run.here, run.there, off=off)
            rows = [row for row in cluster.sandboxes() if row["name"].startswith(f"{name}-")]
            assert [("seccomp" in row["in_force"]) for row in rows] == [not off] * 2
            (figure,) = system_calls_per_round_trip(run, pair)
            if not figure.n:
                pytest.skip(figure.note)
            counts[name] = figure.p50 or 0
            pair.destroy()
    assert counts["within"] <= counts["without"] + FEW, counts


def test_an_absent_peer_is_said_to_be_absent_and_fails_nothing(tmp_path):
    (tmp_path / "iceoryx2.py").write_text("raise ImportError('not installed in this test')\n")
    told = told_by(hvd_bench("ipc", "--duration", "0", "--json", path=tmp_path))
    assert len(told["goals"]) >= 11
    absent = [row for row in told["rows"] if row["name"] == "iceoryx2 Python package"]
    assert absent
    for row in absent:
        assert row["n"] == 0
        assert "not installed in this test" in row["note"]
    assert not [goal for goal in told["goals"] if "iceoryx2" in goal["name"]]


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="not on this machine: iperf3")
@needs_tun
def test_programs_are_measured_in_turns_with_every_other_way_between_them():
    figures = {figure.name: figure for figure in measure_net_programs(Run(1, 1, cpus_from(None), lambda _: None))}
    tcp, hot, asleep = "TCP, one stream", "round trip of a packet, hot", "round trip of a packet, asleep"
    of_guests = {what: figures[f"{what}: {GUESTS}"] for what in (tcp, hot, asleep)}
    assert all(figure.n >= 1 and (figure.p50 or 0) > 0.01 for figure in of_guests.values())
    assert [goal["goal"] for goal in of_guests[tcp].goals_as_dicts()] == [5.0]
    goals = {
        (tcp, BRIDGE): [], (tcp, SWITCH): [2.0], (hot, BRIDGE): [2.0], (asleep, BRIDGE): [], (asleep, CHAIN): [1.5],
    }  # fmt: skip
    for (what, way), bounds in goals.items():
        other, times = figures[f"{what}: {way}"], figures[f"{what}: {GUESTS} / {way}"]
        assert (other.n == 0) == other.note.startswith("absent: ") == (times.n == 0)
        if other.p50:
            assert times.p50 == pytest.approx((of_guests[what].p50 or 0) / other.p50, rel=0.01, abs=0.001)
            assert [goal["goal"] for goal in times.goals_as_dicts()] == bounds
    if os.geteuid() == 0:
        assert figures[f"{asleep}: {CHAIN}"].n and figures[f"{hot}: {BRIDGE}"].n
    if os.geteuid() == 0 and shutil.which("ovs-vswitchd", path=OVS_PATH):
        assert figures[f"{tcp}: {SWITCH}"].n and figures[f"{hot}: {SWITCH}"].n


@needs_tun
def test_a_way_that_the_machine_lacks_is_said_to_be_absent(monkeypatch):
    def refused() -> int:
        raise Absent("no namespaces in this test")

    monkeypatch.setattr("hvd.toolstack.bench.net_ways.namespace", refused)
    monkeypatch.setattr("hvd.toolstack.bench.net_ways.OVS_PATH", "/nonexistent")
    figures = measure_net_programs(Run(1, 0, cpus_from(None), lambda _: None))
    absent = {figure.name: figure.note for figure in figures if figure.note.startswith("absent: ")}
    asleep = "round trip of a packet, asleep"
    assert absent[f"{asleep}: {CHAIN}"] == "absent: no namespaces in this test"
    assert absent[f"{asleep}: {SWITCH}"] == "absent: ovsdb-tool is not installed: apt-get install openvswitch-switch"
    goals = [goal["name"] for figure in figures for goal in figure.goals_as_dicts()]
    assert not [name for name in goals if "/" in name]


def test_without_iperf3_no_tcp_is_measured(monkeypatch):
    monkeypatch.setattr("hvd.toolstack.bench.net_programs.shutil", SimpleNamespace(which=lambda _: None))
    first, *_ = measure_net_programs(Run(1, 0, cpus_from(None), lambda _: None))
    assert not first.goals
    assert first.note.startswith("absent: ")
    assert "iperf3 is not installed" in first.note or "/dev/net/tun" in first.note


@needs_tun
def test_tcp_connections_are_watched_over_so_many_kills_of_the_switch():
    figures = {figure.name: figure for figure in measure_net_deaths(Run(1, 0, cpus_from(None), lambda _: None, 2))}
    killed, lost = figures["switch killed to the next answer"], figures[TCP]
    assert killed.n == 2
    assert [goal["goal"] for goal in killed.goals_as_dicts()] == [30.0, 150.0]
    assert (lost.p50, lost.met) == (0, True)
    parts = [figure.samples for name, figure in figures.items() if name.startswith("switch: ")]
    assert len(parts) == 4
    assert [sum(times) for times in zip(*parts, strict=True)] == pytest.approx(killed.samples, abs=0.001)


@needs_tun
def test_a_tcp_connection_that_ends_is_counted_as_lost(monkeypatch):
    monkeypatch.setattr("hvd.toolstack.bench.net_deaths.ECHO", ECHO.replace("sendall(part)", "sendall(part[:9])"))
    monkeypatch.setattr("hvd.toolstack.bench.net_deaths.TALK", TALK.replace("to, 7), 30", "to, 7), 0.3"))
    figures = {figure.name: figure for figure in measure_net_deaths(Run(1, 0, cpus_from(None), lambda _: None, 1))}
    assert (figures[TCP].p50, figures[TCP].met) == (8, False)


def test_check_ends_with_1_exactly_when_a_goal_is_missed_and_names_it():
    result = hvd_bench("hypercall", "--duration", "0.1", "--json", "--check")
    missed = [goal for goal in json.loads(result.stdout)["goals"] if not goal["met"]]
    assert result.returncode == (1 if missed else 0)
    assert result.stderr.count("goal missed: ") == len(missed)
    assert all(goal["name"] in result.stderr for goal in missed)


def test_for_people_there_is_the_machine_and_a_table_and_progress():
    result = hvd_bench("hypercall", "--duration", "2")
    assert result.returncode == 0
    assert result.stdout.startswith("machine: cpu ")
    assert "hypercall round trip" in result.stdout
    assert "hvd: hypercall: " in result.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["frobnicate"], "frobnicate"), (["ipc", "--cpus", "0,x"], "--cpus"), (["ipc", "--cpus", "4096"], "--cpus"),
        (["ipc", "--duration", "soon"], "--duration"), (["ipc", "--duration", "-1"], "--duration"),
        (["ipc", "--seed", "x"], "--seed"), (["net", "--kills", "0"], "--kills"),
        (["ipc", "--report", "/nonexistent"], "--report"), ([], "WHAT"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_measures_nothing(words, named):
    result = hvd_bench(*words)
    assert result.returncode == 2
    assert named in result.stderr
    assert result.stdout == ""


def test_a_report_is_written_where_it_was_asked_for(tmp_path):
    result = hvd_bench("hypercall", "--duration", "0", "--report", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "hypercall round trip" in (tmp_path / "performance.md").read_text()
    assert [path.name for path in (tmp_path / "performance").iterdir()] == ["hypercall-hypercalls.svg"]


CHANNELS_OF_NOBODY = """
from hvd.toolstack.bench.run import Run, cpus_from
from hvd.toolstack.bench.scale import measure_scale
figures = measure_scale(Run(1, 0.0, cpus_from(None), lambda text: None), domains=3)
print([(f.p50, f.met, f.note) for f in figures if f.name.startswith("channels between two domains")])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_a_thousand_channels_need_no_root():
    with nobody() as somebody:
        if somebody is None:
            pytest.skip("no interpreter of this version that other users may execute")
        told = subprocess.run(
            [*somebody.python, "-P", "-c", CHANNELS_OF_NOBODY], env=somebody.environment, cwd="/", text=True,
            capture_output=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert told.stdout == "[(1000.0, True, 'without root')]\n", told.stderr


def test_an_interrupted_bench_leaves_nothing_running():
    command = [sys.executable, "-m", "hvd", "bench", "ipc", "--duration", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "round" not in process.stderr.readline():
            continue
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130  # conftest looks for what is left


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as cluster:
        yield cluster


def test_a_stopped_domain_makes_every_call_late_that_was_due_meanwhile(cluster):
    """Coordinated omission: by its own clock, from sending on, the caller sees one slow call."""
    first, *_, last = (*cpus_from(None),)
    pair = Pair(cluster, "pair", first, last)
    pair.answerer.order("answer", spin_ns=-1)
    pair.answerer.domain.kill(signal.SIGSTOP)
    before = sent_by(cluster, pair.caller.domid)
    pair.caller.order("call_at_rate", interval_ns=1_000_000, for_ns=1_000_000_000, spin_ns=-1)
    wait_for(lambda: sent_by(cluster, pair.caller.domid) > before, "its first call")
    time.sleep(0.3)  # the fault itself lasts: it is 0.3 s of a run of 1 s
    pair.answerer.domain.kill(signal.SIGCONT)
    result = pair.caller.result(0.5)
    pair.answerer.result()
    intended, sent = from_text(result["times"]), from_text(result["sent"])
    assert intended.count == sent.count == 1000
    late = 50_000_000
    assert sent.count_from(late) >= 1
    assert intended.count_from(late) >= 150
    assert intended.count_from(late) > 10 * sent.count_from(late)


def sent_by(cluster: Cluster, domid: int) -> int:
    """How often it has notified another guest."""
    rows = [row for row in cluster.event_channels() if row["domid"] == domid and row["remote_domid"]]
    return sum(row["sent"] or 0 for row in rows)


def test_a_turn_that_is_to_be_traced_is_and_the_next_is_not(cluster):
    with traced(cluster):
        with pytest.raises(HypercallError) as refused:
            cluster.call(m.TraceStart([], only_if_free=True))
        assert refused.value.errno == errno.EBUSY
    cluster.call(m.TraceStart([], only_if_free=True))


def test_many_domains_are_made_weighed_and_compared():
    figures = measure_scale(Run(1, 0.0, cpus_from(None), lambda text: None), domains=12)
    by_name = {figure.name: figure for figure in figures}
    assert by_name["memory of a domain (PSS)"].n == 12 - 2 - 1
    assert by_name["channels between two domains, each rung and heard"].met
    assert all(figure.n > 0 for figure in figures)


def test_births_are_measured_before_and_after_domains_have_lived_there_and_none_of_them_stays(tmp_path):
    with Cluster.build() as cluster:
        figures = {figure.name: figure for figure in measure_births(cluster, tmp_path, 1, lambda text: None)}
        assert [info.domid for info in cluster.infos().values()] == [0]
        assert cluster.create(m.DomainConfig("next", "hvd:idle")).domid == 1 + 1 + LIVED + 1 + STANDBYS + 1 + 1
    fresh = figures["domain create to its first line, from a standby, before any has lived"]
    warm = figures["domain create to its first line, from a warm standby"]
    assert all(figure.samples[0] > 0 for figure in (fresh, warm))
    assert (fresh.goals, warm.goals[0].most) == ((), 1.0)
