"""A trace while it runs, on a broker that answers as it is told: what is heard, what is gone, what ends it."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any

import pytest

from hvd.toolstack.cluster.errors import NotRunning
from hvd.toolstack.cluster.events import LifecycleEvent
from hvd.toolstack.trace import session as session_module
from hvd.toolstack.trace.session import LIFECYCLE_MAX, TraceSession
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.trace import TraceClock

DEADLINE_S = 30.0


class Events:
    """News that have come already."""

    def __init__(self, *news: tuple[str, int]) -> None:
        self.waiting = deque(LifecycleEvent(event, domid, f"d{domid}", 1, "", 0) for event, domid in news)
        self.closed = False

    def next_until(self, until: float) -> LifecycleEvent | None:
        return self.waiting.popleft() if self.waiting else None

    def close(self) -> None:
        self.closed = True


class Connection:
    """`refusals`: what a kind of message is answered with instead."""

    def __init__(self, *news: tuple[str, int]) -> None:
        self.news = Events(*news)
        self.refusals: dict[type, Exception] = {}
        self.calls: list[Any] = []

    def events(self) -> Events:
        return self.news

    def call(self, message: Any) -> Any:
        self.calls.append(message)
        if type(message) in self.refusals:
            raise self.refusals[type(message)]
        match message:
            case m.TraceStart():
                return 7
            case m.TraceBuffers():
                return {"clock": TraceClock.MONOTONIC, "buffers": [[3, 1, "d3", True, 5]]}
            case m.TraceRead():
                return [5, 0, b"", 5]
        return None


def traced(connection: Connection, *domids: int) -> TraceSession:
    made = TraceSession(connection, [DomId(domid) for domid in domids])  # type: ignore[arg-type]
    made.start()
    return made


def test_a_trace_keeps_so_many_lifecycle_events(monkeypatch):
    monkeypatch.setattr(session_module, "LIFECYCLE_MAX", 3)
    recording = traced(Connection(*[("ready", number) for number in range(5)])).stop()
    assert [event.domid for _, event in recording.lifecycle] == [0, 1, 2]
    assert LIFECYCLE_MAX > 3


def test_what_others_live_through_is_not_in_a_trace_of_some():
    connection = Connection(("hello", -1), ("ready", 3), ("ready", 4), ("broker restarted", -1))
    recording = traced(connection, 3).stop()
    assert [(event.event, event.domid) for _, event in recording.lifecycle] == [("ready", 3), ("broker restarted", -1)]


def test_a_buffer_that_has_gone_ends_its_track_and_no_other():
    connection = Connection()
    connection.refusals[m.TraceRead] = HypercallError(errno.ENOENT, "has gone", "TraceRead")
    recording = traced(connection).stop()
    assert (recording.ended_early, [track.name for track in recording.tracks]) == ("", ["d3"])


@pytest.mark.parametrize(
    ("error", "why"),
    [(NotRunning("gone"), "the machine has stopped"), (HypercallError(errno.ESTALE, "over", "TraceRead"), "over")],
)
def test_what_ends_a_trace_early_is_said(error, why):
    connection = Connection()
    session = traced(connection)
    connection.refusals[m.TraceBuffers] = error
    assert session.wait(DEADLINE_S)
    assert session.stop().ended_early == why
    assert connection.news.closed


def test_a_trace_that_is_refused_leaves_nothing_open():
    connection = Connection()
    connection.refusals[m.TraceStart] = HypercallError(errno.ENOSPC, "no memory", "TraceStart")
    with pytest.raises(HypercallError):
        traced(connection)
    assert connection.news.closed


def test_a_stopped_trace_is_read_once_more_before_its_buffers_are_given_back():
    connection = Connection()
    traced(connection).stop()
    kinds = [type(call) for call in connection.calls]
    stops = [call.keep for call in connection.calls if isinstance(call, m.TraceStop)]
    assert stops == [True, False]
    assert m.TraceRead in kinds[kinds.index(m.TraceStop) : -1]
