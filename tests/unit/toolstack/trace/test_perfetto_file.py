"""What is drawn, read back from the file with the package's own classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from hvd.toolstack.cluster.errors import BadTraceFile, MissingPackage
from hvd.toolstack.cluster.events import LifecycleEvent
from hvd.toolstack.trace import perfetto_file
from hvd.toolstack.trace.clock import Moment, Timeline
from hvd.toolstack.trace.perfetto_file import PerfettoFile
from hvd.toolstack.trace.session import Recording
from hvd.toolstack.trace.story import LANES_MAX, Story, tell
from hvd.toolstack.trace.track import Event, Track
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.trace import HYPERVISOR, TOOLSTACK, Kind

TIMELINE = Timeline(Moment(0, 1_000_000), Moment(1_000, 1_010_000))  # ten nanoseconds a tick
FRONT, BACK = DomId(2), DomId(1)


def bound(domid: int, port: int, side: int) -> Event:
    return Event(0, Kind.PORT_BOUND, port, 40 << 32 | domid, side)


def track(domid: DomId, name: str, *events: Event, incarnation: int = 1) -> Track:
    made = Track(domid, Incarnation(incarnation), name, 0)
    made.events.extend(events)
    return made


def recording(*tracks: Track, lifecycle: list[tuple[int, LifecycleEvent]] | None = None) -> Recording:
    broker = track(HYPERVISOR[0], "hypervisor", bound(FRONT, 3, 0), bound(BACK, 7, 1), incarnation=0)
    return Recording(TIMELINE, [broker, *tracks], lifecycle or [])


def died(ns: int, domid: int, name: str, detail: str) -> tuple[int, LifecycleEvent]:
    return ns, LifecycleEvent("died", domid, name, 1, detail, 0)


def drawn(made: Recording, path: Path) -> tuple[dict[int, tuple[str, int]], list[Any]]:
    """(lanes by uuid: name and parent), (timestamp, event) in the order of the file."""
    with PerfettoFile(path) as file:
        file.write(tell(made))
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    lanes = {
        p.track_descriptor.uuid: (p.track_descriptor.name, p.track_descriptor.parent_uuid)
        for p in trace.packet if p.HasField("track_descriptor")
    }  # fmt: skip
    events = [(p.timestamp, p.track_event) for p in trace.packet if p.HasField("track_event")]
    assert [at for at, _ in events] == sorted(at for at, _ in events)
    assert {event.track_uuid for _, event in events} <= lanes.keys()
    return lanes, events


EXCHANGE = (
    track(FRONT, "ivi", Event(100, Kind.REQUEST_OUT, 3, 5, 1), Event(400, Kind.RESPONSE_IN, 3, 5, 1)),
    track(BACK, "storage", Event(200, Kind.REQUEST_IN, 7, 5, 1), Event(300, Kind.RESPONSE_OUT, 7, 5, 1)),
)


def test_a_request_is_a_slice_at_either_end_and_a_flow_to_where_its_response_came_in(tmp_path):
    lanes, events = drawn(recording(*EXCHANGE), tmp_path / "t")
    rows = [(at, event.name, lanes[event.track_uuid][0]) for at, event in events]
    assert rows == [
        (1_001_000, "request", "requests to storage (port 3)"),
        (1_002_000, "serve", "serving for ivi (port 7)"),
        (1_003_000, "", "serving for ivi (port 7)"),
        (1_004_000, "", "requests to storage (port 3)"),
        (1_004_000, "response", "ivi (domid 2)"),
    ]
    (request, serve, *_, response) = [event for _, event in events]
    assert list(request.flow_ids) == list(serve.flow_ids) == list(response.terminating_flow_ids) != []
    assert request.type == TrackEvent.TYPE_SLICE_BEGIN
    assert response.type == TrackEvent.TYPE_INSTANT
    assert [(note.name, note.uint_value) for note in request.debug_annotations] == [("id", 5)]


def test_every_domain_has_a_lane_and_its_rings_lie_below_it(tmp_path):
    lanes, _ = drawn(recording(*EXCHANGE), tmp_path / "t")
    uuids = {name: uuid for uuid, (name, _) in lanes.items()}
    roots = {name for name, parent in lanes.values() if not parent}
    assert roots == {"hypervisor", "storage (domid 1)", "ivi (domid 2)"}
    assert lanes[uuids["serving for ivi (port 7)"]][1] == uuids["storage (domid 1)"]


def test_what_a_domain_was_at_when_it_was_killed_ends_with_its_death(tmp_path):
    asking, _ = EXCHANGE
    killed = track(BACK, "storage", Event(200, Kind.REQUEST_IN, 7, 5, 1))
    lanes, events = drawn(recording(asking, killed, lifecycle=[died(1_002_500, 1, "storage", "killed by SIGKILL")]),
                          tmp_path / "t")  # fmt: skip
    serving = [(at, event.name) for at, event in events if lanes[event.track_uuid][0].startswith("serving")]
    assert serving == [(1_002_000, "serve (unanswered)"), (1_002_500, "")]
    assert (1_002_500, "died: killed by SIGKILL") in [(at, event.name) for at, event in events]


def test_requests_that_overlap_lie_side_by_side_and_those_that_do_not_share_a_lane(tmp_path):
    out, into = Kind.REQUEST_OUT, Kind.RESPONSE_IN
    asking = track(FRONT, "ivi", Event(1, out, 3, 0, 2), Event(5, into, 3, 1, 1), Event(6, into, 3, 0, 1),
                   Event(7, out, 3, 2, 1), Event(8, into, 3, 2, 1))  # fmt: skip
    lanes, events = drawn(recording(asking), tmp_path / "t")
    assert [name for name, _ in lanes.values()].count("requests to domid 1 (port 3)") == 2
    open_lanes = set()
    for _, event in events:
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in open_lanes
            open_lanes.add(event.track_uuid)
        elif event.type == TrackEvent.TYPE_SLICE_END:
            open_lanes.remove(event.track_uuid)
    assert not open_lanes


def test_more_requests_in_flight_than_there_are_lanes_are_counted_and_not_drawn():
    asking = track(FRONT, "ivi", Event(1, Kind.REQUEST_OUT, 3, 0, LANES_MAX + 9))
    story = tell(recording(asking))
    assert story.undrawn == 9
    assert len(story.lanes) < LANES_MAX + 5


def test_a_hypercall_is_a_slice_of_the_hypervisor_that_says_who_called_and_what_was_refused(tmp_path):
    made = recording(track(FRONT, "ivi"))
    made.tracks[0].events.extend([
        Event(10, Kind.HYPERCALL, FRONT, 8, 0x2000), Event(12, Kind.HYPERCALL_DONE, FRONT, 8, 13),
        Event(20, Kind.HYPERCALL, TOOLSTACK, 1, 0x2482), Event(21, Kind.HYPERCALL_DONE, TOOLSTACK, 1, 0),
        Event(30, Kind.HYPERCALL, FRONT, 9, 0xFFFF), Event(31, Kind.HYPERCALL, FRONT, 9, 0x1D80),
    ])  # fmt: skip
    _, events = drawn(made, tmp_path / "t")
    begun = [event for _, event in events if event.type == TrackEvent.TYPE_SLICE_BEGIN]
    notes = [{note.name: note.string_value or note.uint_value for note in event.debug_annotations} for event in begun]
    assert notes[0] == {"caller": "ivi", "sequence": 8, "refused": "EACCES"}
    assert notes[1] == {"caller": "toolstack", "sequence": 1}
    assert [event.name for event in begun][1:] == ["DomctlKill", "hypercall 0xffff: its broker died"]


def test_a_notification_points_to_the_event_it_became(tmp_path):
    ringing = track(FRONT, "ivi", Event(1, Kind.NOTIFY, 3, 0, 0))
    hearing = track(BACK, "storage", Event(2, Kind.EVENT, 7, 0, 0))
    _, ((_, notify), (_, event)) = drawn(recording(ringing, hearing), tmp_path / "t")
    assert (notify.name, event.name) == ("notify storage", "event from ivi")
    assert list(notify.flow_ids) == list(event.terminating_flow_ids) != []


def test_what_was_lost_and_who_scribbled_stands_on_the_lane(tmp_path):
    liar = track(BACK, "storage", Event(1, Kind.NOTIFY, 7, 0, 0))
    liar.gaps, liar.senseless = [(1, 1234)], 5
    lanes, events = drawn(recording(liar), tmp_path / "t")
    said = [event.name for _, event in events if lanes[event.track_uuid][0] == "storage (domid 1)"]
    assert "1,234 records lost" in said
    assert "storage wrote over its buffer: 0 records torn, 5 senseless" in said


def test_without_perfetto_the_message_is_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace", None)
    with pytest.raises(MissingPackage, match=rf"    {sys.executable} -m pip install 'perfetto>=0.16'"):
        PerfettoFile(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_made_nothing_is_begun(tmp_path):
    with pytest.raises(BadTraceFile, match=r"cannot write .*/none/t: No such file or directory"):
        PerfettoFile(tmp_path / "none" / "t")
    with pytest.raises(BadTraceFile, match="is a directory"):
        PerfettoFile(tmp_path)


def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path):
    path = tmp_path / "t"
    path.write_text("older")
    with pytest.raises(RuntimeError), PerfettoFile(path):
        raise RuntimeError
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]


def test_a_long_story_is_written_in_parts_that_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(perfetto_file, "PACKETS_PER_WRITE", 10)
    notifies = [Event(n, Kind.NOTIFY, 3, 0, 0) for n in range(100)]
    _, events = drawn(recording(track(FRONT, "ivi", *notifies)), tmp_path / "t")
    assert len(events) == 100
    assert Story().flows == 0
