"""What is drawn: a lane for each domain and below it lanes for its rings, and on them marks, slices and flows."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush

from hvd.toolstack.trace.exchanges import Channels, Exchange, Place, exchanges, hypercalls, notifications
from hvd.toolstack.trace.session import Recording, is_hypervisor
from hvd.toolstack.trace.track import Track
from hvd.transport.ids import DomId
from hvd.transport.messages import HYPERCALLS
from hvd.transport.trace import HYPERVISOR, TOOLSTACK, Kind

LANES_MAX = 256
"""Requests of one ring that are drawn side by side; what more is in flight at a time is not drawn."""
Lane = int
Note = tuple[str, str | int]


class Shape(IntEnum):
    """In the order in which marks of one moment are written."""

    END = 0
    INSTANT = 1
    BEGIN = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Something at one moment, on one lane."""

    ns: int
    shape: Shape
    lane: Lane
    name: str = ""
    flow: int | None = None
    flow_ends: bool = False
    notes: tuple[Note, ...] = ()


@dataclass(slots=True)
class Story:
    """Lanes are numbers from 1 on: (name, parent or None)."""

    lanes: dict[Lane, tuple[str, Lane | None]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    flows: int = 0
    undrawn: int = 0
    """Requests for which there was no lane."""

    def add_lane(self, name: str, parent: Lane | None = None) -> Lane:
        lane = len(self.lanes) + 1
        self.lanes[lane] = name, parent
        return lane

    def slice(self, lane: Lane, begin: int, end: int, name: str, *notes: Note, flow: int | None = None) -> None:
        self.marks.append(Mark(begin, Shape.BEGIN, lane, name, flow, notes=notes))
        self.marks.append(Mark(max(begin + 1, end), Shape.END, lane))

    def next_flow(self) -> int:
        self.flows += 1
        return self.flows


def tell(recording: Recording) -> Story:
    """The whole story of a trace, its marks in the order of time."""
    story = _Teller(recording).tell()
    story.marks.sort(key=lambda mark: (mark.ns, mark.shape))
    return story


class _Teller:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._ns: Callable[[int], int] = recording.timeline.ns
        self._end_ns = recording.timeline.ended.ns
        self._tracks = recording.tracks
        self._story = Story()
        self._names = {track.domid: track.name for track in self._tracks}
        self._names |= {DomId(event.domid): event.name for _, event in recording.lifecycle if event.domid >= 0}
        self._domains: dict[DomId, Lane] = {}
        broker = next((track for track in self._tracks if is_hypervisor(track)), None)
        self._broker_events = list(broker.events) if broker else []
        self._channels = Channels(self._broker_events)
        self._deaths = {
            (event.domid, event.incarnation): ns for ns, event in recording.lifecycle if event.event == "died"
        }

    def tell(self) -> Story:
        for domid in (HYPERVISOR[0], *sorted(self._names.keys() - {HYPERVISOR[0]})):
            name = self._names.get(domid, "hypervisor")
            self._domains[domid] = self._story.add_lane(name if domid == HYPERVISOR[0] else f"{name} (domid {domid})")
        self._tell_lifecycle()
        self._tell_brokers()
        self._tell_hypercalls()
        self._tell_notifications()
        self._tell_exchanges()
        self._tell_gaps()
        return self._story

    def _tell_lifecycle(self) -> None:
        for ns, event in self._recording.lifecycle:
            lane = self._domains[DomId(event.domid) if event.domid >= 0 else HYPERVISOR[0]]
            text = f"{event.event}: {event.detail}" if event.detail else event.event
            self._story.marks.append(Mark(ns, Shape.INSTANT, lane, text, notes=(("incarnation", event.incarnation),)))

    def _tell_hypercalls(self) -> None:
        for call in hypercalls(self._broker_events):
            message = HYPERCALLS.get(call.number)
            name = message.__name__ if message else f"hypercall {call.number:#x}"
            caller = "toolstack" if call.caller == TOOLSTACK else self._names.get(call.caller, f"domid {call.caller}")
            notes: list[Note] = [("caller", caller), ("sequence", call.sequence)]
            if call.errno:
                notes.append(("refused", errno.errorcode.get(call.errno, str(call.errno))))
            begin = self._ns(call.began_ticks)
            if call.ended_ticks is None:
                self._story.slice(self._domains[HYPERVISOR[0]], begin, begin, f"{name}: its broker died", *notes)
            else:
                self._story.slice(self._domains[HYPERVISOR[0]], begin, self._ns(call.ended_ticks), name, *notes)

    def _tell_brokers(self) -> None:
        """A new broker's news of itself come before anybody can hear them, so its first record tells."""
        begun = [event for event in self._broker_events if event.kind is Kind.BROKER]
        for event in begun[1:]:
            at, lane = self._ns(event.ticks), self._domains[HYPERVISOR[0]]
            self._story.marks.append(Mark(at, Shape.INSTANT, lane, "broker restarted", notes=(("pid", event.id),)))

    def _tell_notifications(self) -> None:
        flows: dict[Place, tuple[int | None, bool]] = {}
        for notified, taken in notifications(self._tracks, self._channels):
            joined = self._story.next_flow()
            flows[notified], flows[taken] = (joined, False), (joined, True)
        for index, track in enumerate(self._tracks):
            for event in track.events:
                if event.kind in (Kind.NOTIFY, Kind.EVENT):
                    place = Place(index, event.port, event.ticks)
                    flow, ends = flows.get(place, (None, False))
                    verb = "notify" if event.kind is Kind.NOTIFY else "event from"
                    name = f"{verb} {self._peer_name(track, place)}"
                    self._mark(place, name, flow, ends)

    def _mark(self, place: Place, name: str, flow: int | None, ends: bool) -> None:
        lane = self._domains[self._tracks[place.track].domid]
        notes: tuple[Note, ...] = (("port", place.port),)
        self._story.marks.append(Mark(self._ns(place.ticks), Shape.INSTANT, lane, name, flow, ends, notes))

    def _tell_exchanges(self) -> None:
        """A slice at the asking end, one at the answering end, and a flow over both to where the response came in."""
        rings: dict[tuple[Lane, str], _Lanes] = {}
        for exchange in exchanges(self._tracks, self._channels):
            flow = self._story.next_flow() if exchange.joined else None
            for begin, end, name, label in self._slices(exchange):
                key = self._domain_lane(begin), self._ring_name(begin, name)
                if key not in rings:
                    rings[key] = _Lanes(self._story, *key)
                begin_ns, end_ns = self._ns(begin.ticks), end
                lane = rings[key].take(begin_ns, end_ns)
                if lane is None:
                    self._story.undrawn += 1
                    continue
                self._story.slice(lane, begin_ns, end_ns, label, ("id", exchange.id), flow=flow)
            if flow is not None and exchange.received is not None:
                self._mark(exchange.received, "response", flow, True)

    def _slices(self, exchange: Exchange) -> Iterator[tuple[Place, int, str, str]]:
        """(where it begins, ns of its end, whose lane, its label)."""
        for begin, end, lane, label in (
            (exchange.asked, exchange.received, "requests", "request"),
            (exchange.taken, exchange.answered, "serving", "serve"),
        ):
            if begin is None:
                continue
            if end is not None:
                yield begin, self._ns(end.ticks), lane, label
            else:
                yield begin, self._cut_short(begin, exchange), lane, f"{label} (unanswered)"

    def _cut_short(self, begin: Place, exchange: Exchange) -> int:
        """When what has no end ended: its domain died, the request was asked again, or the trace was over."""
        track = self._tracks[begin.track]
        ends = [self._end_ns, self._deaths.get((track.domid, track.incarnation), self._end_ns)]
        if exchange.asked_again is not None:
            ends.append(self._ns(exchange.asked_again))
        return max(self._ns(begin.ticks), min(ends))

    def _tell_gaps(self) -> None:
        for track in self._tracks:
            lane = self._domains[track.domid]
            for ticks, count in track.gaps:
                self._story.marks.append(Mark(self._ns(ticks), Shape.INSTANT, lane, f"{count:,} records lost"))
            if track.spoiled:
                text = f"{track.name} wrote over its buffer: {track.torn:,} records torn, {track.senseless:,} senseless"
                self._story.marks.append(Mark(self._end_ns, Shape.INSTANT, lane, text))

    def _domain_lane(self, place: Place) -> Lane:
        return self._domains[self._tracks[place.track].domid]

    def _ring_name(self, place: Place, what: str) -> str:
        peer = self._peer_name(self._tracks[place.track], place)
        return f"{what} {'to' if what == 'requests' else 'for'} {peer} (port {place.port})"

    def _peer_name(self, track: Track, place: Place) -> str:
        channel = self._channels.at(track.domid, place.port, place.ticks)
        peer = None if channel is None else self._channels.peer(channel, track.domid)
        if peer is None:
            return "the hypervisor" if channel is not None else f"port {place.port}"
        return self._names.get(peer, f"domid {peer}")


class _Lanes:
    """Lanes of one name below one parent, for slices that overlap: each goes on the lane that is free for longest."""

    def __init__(self, story: Story, parent: Lane, name: str) -> None:
        self._story, self._parent, self._name = story, parent, name
        self._free: list[tuple[int, Lane]] = []
        self._count = 0

    def take(self, begin_ns: int, end_ns: int) -> Lane | None:
        """A lane with nothing on it from `begin_ns` on; None when all are taken."""
        if self._free and self._free[0][0] <= begin_ns:
            lane = heappop(self._free)[1]
        elif self._count < LANES_MAX:
            lane = self._story.add_lane(self._name, self._parent)
            self._count += 1
        else:
            return None
        heappush(self._free, (max(begin_ns + 1, end_ns), lane))
        return lane
