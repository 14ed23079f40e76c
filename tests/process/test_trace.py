"""Traces of real clusters: what is in the file, what outlives a kill, and what a domain that lies can spoil."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from hvd.toolstack.cluster import Cluster, DomainState, NoSuchDomain
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from hvd.transport.trace import BUFFER_PAGES, Kind

DEADLINE_S = 40.0
FOREVER = RestartPolicy(limit=0)
ASKER = """
import errno

def main(guest):
    disk, echo = guest.disk(), guest.device("echo")
    number = 0
    while True:
        number += 1
        disk.write(number % 64, number.to_bytes(512, "little"))
        assert echo.call(number.to_bytes(8, "little"))[:1] == bytes([number % 256])
        guest.sleep(0.005)  # what is recorded in many seconds has room: whoever reads may be kept from it
"""
SCRIBBLER = f"""
import ctypes, random

def mapped(name):
    for line in open("/proc/self/maps"):
        if name in line and "shared-info" in line or name in line:
            yield [int(end, 16) for end in line.split()[0].split("-")]

def main(guest):
    libc = ctypes.CDLL(None, use_errno=True)
    for begin, end in mapped("hvd-shared-info"):
        if libc.mprotect(ctypes.c_void_p(begin), end - begin, 3) == 0:
            raise AssertionError("it could switch its own trace")
    (begin, end), = mapped("hvd-trace")
    assert end - begin == {BUFFER_PAGES} * 4096
    source, echo = random.Random(1), guest.device("echo")
    while True:
        for junk in (bytes(8), b"\\xff" * 8, source.randbytes(8), (40_000).to_bytes(8, "little")):
            ctypes.memmove(begin, junk, 8)
            echo.call(b"x")
            ctypes.memmove(begin + 4096, source.randbytes(65_536), 65_536)
        guest.sleep(0.001)
"""


@dataclass(frozen=True)
class Mark:
    """One event of a file."""

    ns: int
    kind: int
    name: str
    lane: str
    flows: tuple[int, ...]
    notes: dict[str, Any]


def marks_of(path: Path) -> list[Mark]:
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    lanes = {p.track_descriptor.uuid: p.track_descriptor.name for p in trace.packet if p.HasField("track_descriptor")}
    return [
        Mark(p.timestamp, e.type, e.name, lanes[e.track_uuid], (*e.flow_ids, *e.terminating_flow_ids),
             {note.name: note.string_value or note.uint_value for note in e.debug_annotations})
        for p in trace.packet if p.HasField("track_event") for e in (p.track_event,)
    ]  # fmt: skip


def flows_of(marks: list[Mark]) -> list[list[str]]:
    """The names along each flow, in the order of time."""
    stations: dict[int, list[str]] = {}
    for mark in marks:
        for flow in mark.flows:
            stations.setdefault(flow, []).append(mark.name)
    return list(stations.values())


def tracks_of(summary: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(track["name"], track["incarnation"]): track for track in summary["tracks"]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A guest that asks its disk and an echo device again and again."""
    directory = tmp_path_factory.mktemp("trace")
    image, kernel = directory / "guest.img", directory / "asker.py"
    image.touch()
    os.truncate(image, 1 << 20)
    kernel.write_text(ASKER)
    disk = DeviceConfig("vbd", 51712, "driver", {"params": str(image), "mode": "w", "dev": "xvda"})
    with Cluster.build([
        DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER),
        DomainConfig("asker", str(kernel), devices=[disk, DeviceConfig("echo", 0, "driver")], restart=FOREVER,
                     sandbox_off=["opaque"]),  # its memory is looked at
    ]) as cluster:  # fmt: skip
        yield cluster


def wait_requests(cluster: Cluster, trace: Any, count: int) -> None:
    """Until the asker's records of so many responses more have come in."""
    seen = responses(trace)
    while responses(trace) < seen + count:
        assert not trace.session.wait(0.05), "it ended early"


def responses(trace: Any) -> int:
    tracks = [track for track in list(trace.session._tracks.values()) if track.name == "asker"]
    return sum(event.kind == Kind.RESPONSE_IN for track in tracks for event in list(track.events))


def test_a_trace_has_a_lane_for_each_domain_and_flows_from_requests_to_their_responses(cluster, tmp_path):
    path = tmp_path / "t.pftrace"
    before = cluster.info()["descriptors"]
    with cluster.trace(path) as trace:
        wait_requests(cluster, trace, 100)
    assert cluster.info()["descriptors"] == before
    assert {(name, n) for name, n in tracks_of(trace.summary)} == {
        ("hypervisor", 0), ("Domain-0", 1), ("driver", 1), ("asker", 1),
    }  # fmt: skip
    for track in trace.summary["tracks"]:
        assert (track["lost"], track["torn"], track["spoiled"]) == (0, 0, False), track
    marks = marks_of(path)
    lanes = {mark.lane for mark in marks}
    assert {"driver (domid 1)", "asker (domid 2)"} <= lanes
    assert len({lane for lane in lanes if lane.startswith("requests to driver")}) == 2
    assert len({lane for lane in lanes if lane.startswith("serving for asker")}) == 2
    flows = flows_of(marks)
    assert flows.count(["request", "serve", "response"]) > 50
    assert ["notify driver", "event from asker"] in flows
    assert {tuple(flow) for flow in flows} <= {
        ("request", "serve", "response"), ("notify driver", "event from asker"), ("notify asker", "event from driver"),
        ("request", "serve"), ("request (unanswered)", "serve"), ("request (unanswered)", "serve (unanswered)"),
        ("notify Domain-0", "event from asker"), ("notify asker", "event from Domain-0"),
        ("notify Domain-0", "event from driver"), ("notify driver", "event from Domain-0"),
    }  # fmt: skip


def test_nothing_is_recorded_when_the_trace_is_over_and_its_memory_is_given_back(cluster, tmp_path):
    with cluster.trace(tmp_path / "one") as trace:
        wait_requests(cluster, trace, 50)
    assert resident_kib(cluster.domain("asker").pid) <= 4  # a record may have been under way when it ended
    with cluster.trace(tmp_path / "two") as trace:
        wait_requests(cluster, trace, 50)
        began = trace.session._began.ticks
    asker = tracks_of(trace.summary)["asker", 1]
    assert (asker["senseless"], asker["spoiled"]) == (0, False)
    assert began > 0


def resident_kib(pid: int) -> int:
    """Of its trace buffer."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    for line in lines:
        if "hvd-trace" in line:
            return next(int(field.split()[1]) for field in lines if field.startswith("Rss:"))
    raise AssertionError("no trace buffer is mapped")


def test_a_killed_domains_last_events_are_in_the_trace(cluster, tmp_path):
    """Whatever was answered before the death, the dead driver's records of it are there: those of its last millisecond
    too, which nobody can have read while it lived."""
    path = tmp_path / "t"
    driver = cluster.domain("driver")
    incarnation = driver.incarnation
    with cluster.trace(path) as trace:
        wait_requests(cluster, trace, 150)
        driver.kill()
        driver.wait_ready(DEADLINE_S)
        wait_requests(cluster, trace, 50)
    tracks = tracks_of(trace.summary)
    assert tracks["driver", incarnation]["lost"] == 0
    assert tracks["driver", incarnation + 1]["records"] > 0
    marks = marks_of(path)
    death = next(mark.ns for mark in marks if mark.name == "died: killed by SIGKILL")
    answered = [mark for mark in marks if mark.name == "request" and mark.ns < death]
    served = {flow for mark in marks if mark.name == "serve" for flow in mark.flows}
    assert len(answered) > 100
    assert all(set(mark.flows) & served for mark in answered)
    assert [mark.lane for mark in marks if mark.name.startswith("died")] == ["driver (domid 1)"]
    assert any(mark.name == "response" and mark.ns > death for mark in marks)
    (kill,) = [mark for mark in marks if mark.name == "DomctlKill"]
    assert (kill.lane, kill.notes["caller"]) == ("hypervisor", "toolstack")
    assert {mark.notes["caller"] for mark in marks if mark.name == "Multicall"} >= {"driver"}


def test_a_trace_goes_on_when_the_broker_is_killed(cluster, tmp_path):
    path = tmp_path / "t"
    broker = cluster.info()["broker_pid"]
    with cluster.trace(path) as trace:
        wait_requests(cluster, trace, 50)
        os.kill(broker, signal.SIGKILL)
        cluster.wait_until(lambda: cluster.info()["broker_pid"] != broker, "the next broker", DEADLINE_S)
        wait_requests(cluster, trace, 100)
    assert trace.summary["ended_early"] == ""
    for track in trace.summary["tracks"]:
        assert not track["spoiled"], track
    marks = marks_of(path)
    restarted = next(mark.ns for mark in marks if mark.name == "broker restarted")
    responses = [mark.ns for mark in marks if mark.name == "response"]
    assert min(responses) < restarted < max(responses)


def test_only_the_domains_that_were_named_are_traced(cluster, tmp_path):
    with cluster.trace(tmp_path / "t", ["asker"]) as trace:
        wait_requests(cluster, trace, 50)
    assert {name for name, _ in tracks_of(trace.summary)} == {"hypervisor", "asker"}
    with pytest.raises(NoSuchDomain), cluster.trace(tmp_path / "u", ["asker", "nobody"]):
        pass
    assert not (tmp_path / "u").exists()


def test_a_second_trace_ends_the_first_which_keeps_what_it_has(cluster, tmp_path):
    with cluster.trace(tmp_path / "first") as first:
        wait_requests(cluster, first, 50)
        with cluster.trace(tmp_path / "second") as second:
            assert first.session.wait(DEADLINE_S)
            wait_requests(cluster, second, 50)
    assert "another trace has begun since" in first.summary["ended_early"]
    assert second.summary["ended_early"] == ""
    assert "request" in {mark.name for mark in marks_of(tmp_path / "first")}


def test_a_domain_that_writes_over_its_buffer_spoils_its_own_track_and_is_named(cluster, tmp_path):
    kernel = tmp_path / "scribbler.py"
    kernel.write_text(SCRIBBLER)
    path, broker = tmp_path / "t", cluster.info()["broker_pid"]
    # It finds its memory in /proc.
    liar = cluster.create(DomainConfig("liar", str(kernel), devices=[DeviceConfig("echo", 0, "driver")],
                                       on_crash="preserve", sandbox_off=["root", "landlock"]))  # fmt: skip
    liar.wait_ready(DEADLINE_S)
    try:
        with cluster.trace(path) as trace:
            until = trace.session
            while not any(track.spoiled for track in list(until._tracks.values())):
                assert not until.wait(0.05)
            wait_requests(cluster, trace, 50)
        assert liar.state is DomainState.RUNNING, liar.console_log()
    finally:
        liar.destroy()
    tracks = {name: track for (name, _), track in tracks_of(trace.summary).items() if name != "hypervisor"}
    assert {name for name, track in tracks.items() if track["spoiled"]} == {"liar"}
    assert cluster.info()["broker_pid"] == broker
    marks = marks_of(path)
    assert [mark.lane for mark in marks if "wrote over its buffer" in mark.name] == [f"liar (domid {liar.domid})"]
    assert flows_of(marks).count(["request", "serve", "response"]) > 20


def test_the_machines_end_ends_a_trace_and_what_there_was_is_written(tmp_path):
    with Cluster.build([DomainConfig("driver", "hvd:driver_domain", driver_domain=True)]) as cluster:
        with cluster.trace(tmp_path / "t") as trace:
            os.kill(cluster.connection.machine_pid, signal.SIGKILL)
            assert trace.session.wait(DEADLINE_S)
        assert trace.summary["ended_early"] == "the machine has stopped"
    assert (tmp_path / "t").exists()


# ---- the command -----------------------------------------------------------------------------------------------------


def hvd(cluster: Cluster, directory: Path, *words: str) -> subprocess.Popen[str]:
    """The command, started in that directory."""
    command = [sys.executable, "-m", "hvd", "trace", *words]
    environment = os.environ | {"HVD_RUN_DIR": str(cluster.run_dir)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=directory, text=True, stdout=pipe, stderr=pipe)


def test_the_command_writes_a_file_and_tells_programs_what_is_in_it(cluster, tmp_path):
    command = hvd(cluster, tmp_path, "-o", "t.pftrace", "--duration", "0.5", "--domains", "asker,driver", "--json")
    out, err = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 0, err
    summary = json.loads(out)
    assert summary["file"] == "t.pftrace"
    assert {track["name"] for track in summary["tracks"]} == {"hypervisor", "asker", "driver"}
    assert any(mark.kind == TrackEvent.TYPE_SLICE_BEGIN for mark in marks_of(tmp_path / "t.pftrace"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.pftrace"]


def test_ctrl_c_ends_it_and_writes_what_there_is(cluster, tmp_path):
    command = hvd(cluster, tmp_path)
    assert command.stderr is not None
    assert "tracing, Ctrl-C ends it" in command.stderr.readline()
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 0, err
    assert out.startswith("hvd.pftrace: ")
    assert "open it at https://ui.perfetto.dev" in out
    assert marks_of(tmp_path / "hvd.pftrace")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--domains", "nobody"], 1, "no domain 'nobody'"),
        (["-o", "none/t"], 2, "cannot write none/t: No such file or directory: none"),
        (["--duration", "soon"], 2, "Invalid value for '--duration'"),
        (["--duration", "-1"], 2, "Invalid value for '--duration'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_begun(cluster, tmp_path, words, status, said):
    command = hvd(cluster, tmp_path, *words)
    out, err = command.communicate(timeout=DEADLINE_S)
    assert (command.returncode, out) == (status, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_command_says_how_to_install_it_and_is_bad_input(cluster, tmp_path):
    program = "import sys; sys.modules['perfetto'] = None; from hvd.toolstack.cli.app import run; run()"
    command = subprocess.run(
        [sys.executable, "-c", program, "trace"], env=os.environ | {"HVD_RUN_DIR": str(cluster.run_dir)},
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert command.returncode == 2
    assert f"{sys.executable} -m pip install 'perfetto>=0.16'" in command.stderr
    assert list(tmp_path.iterdir()) == []
