"""A trace while it runs: a thread reads the buffers through the broker, again and again, until it is stopped."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvd.toolstack.cluster.errors import NotRunning
from hvd.toolstack.cluster.events import HELLO, EventStream, LifecycleEvent
from hvd.toolstack.trace.clock import Moment, Timeline, monotonic_of_wall
from hvd.toolstack.trace.track import Track
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.trace import HYPERVISOR, Slots, TraceClock

if TYPE_CHECKING:
    from hvd.toolstack.cluster.connection import Connection

INTERVAL_S = 0.1
"""Between two looks at the buffers."""
LIFECYCLE_MAX = 65_536
"""Lifecycle events that a trace keeps; later ones are not in it."""
Whose = tuple[DomId, Incarnation]


@dataclass(slots=True)
class Recording:
    """All that a trace has brought home."""

    timeline: Timeline
    tracks: list[Track]
    lifecycle: list[tuple[int, LifecycleEvent]] = field(default_factory=list)
    """(CLOCK_MONOTONIC in ns, what happened)."""
    ended_early: str = ""
    """Why it ended before it was told to."""


class TraceSession:
    """From `start` to `stop`. Not for two threads at once."""

    def __init__(self, connection: Connection, domids: Sequence[DomId], *, only_if_free: bool = False) -> None:
        """`only_if_free`: `start` is refused (EBUSY) while somebody else traces; else his trace is over."""
        self._connection = connection
        self._only_if_free = only_if_free
        self._chosen = frozenset(domids)
        self._tracks: dict[Whose, Track] = {}
        self._lifecycle: list[tuple[int, LifecycleEvent]] = []
        self._stopping = threading.Event()
        self._ended_early = ""
        self._session = 0
        self._began = Moment(0, 0)
        self._clock = 0
        self._events: EventStream | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Every domain chosen records when this returns. HypercallError when the broker or the host refuses."""
        before = {clock: Moment.now(clock) for clock in (TraceClock.MONOTONIC, TraceClock.COUNTER)}
        self._events = self._connection.events()
        try:
            self._session = self._connection.call(m.TraceStart(sorted(self._chosen), self._only_if_free))
            self._clock = self._connection.call(m.TraceBuffers(self._session))["clock"]
        except BaseException:
            self._events.close()
            raise
        self._began = before[TraceClock(self._clock)]
        self._thread = threading.Thread(target=self._follow, name="trace", daemon=True)
        self._thread.start()

    def stop(self) -> Recording:
        """Record nothing more, read what is left, and give the buffers back."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(HypercallError, NotRunning):
            self._connection.call(m.TraceStop(self._session, keep=True))
            self._look(final=True)
            self._connection.call(m.TraceStop(self._session, keep=False))
        if self._events is not None:
            self._hear()
            self._events.close()
        timeline = Timeline(self._began, Moment.now(self._clock))
        return Recording(timeline, list(self._tracks.values()), self._lifecycle, self._ended_early)

    @property
    def ended(self) -> bool:
        """Whether it ended by itself: the machine stopped, or somebody else traces."""
        return bool(self._ended_early)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it ends by itself, or so long; whether it did."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self.ended

    def progress(self) -> str:
        """What there is so far, for people."""
        tracks = list(self._tracks.values())
        lost = sum(track.lost for track in tracks)
        return f"{sum(len(track.events) for track in tracks):,} records of {len(tracks)} tracks, {lost:,} lost"

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            try:
                self._look(final=False)
                self._hear()
            except NotRunning:
                self._ended_early = "the machine has stopped"
                return
            except HypercallError as error:
                self._ended_early = error.text
                return

    def _hear(self) -> None:
        if self._events is None:
            return
        with suppress(NotRunning):
            while (event := self._events.next_until(time.monotonic())) is not None:
                chosen = not self._chosen or event.domid < 0 or DomId(event.domid) in self._chosen
                if chosen and event.event != HELLO and len(self._lifecycle) < LIFECYCLE_MAX:
                    self._lifecycle.append((monotonic_of_wall(event.at_ns), event))

    def _look(self, *, final: bool) -> None:
        """Read what is new in every buffer, as far as it had come when we looked."""
        for domid, incarnation, name, alive, head in self._connection.call(m.TraceBuffers(self._session))["buffers"]:
            whose = DomId(domid), Incarnation(incarnation)
            track = self._tracks.get(whose)
            if track is None:
                track = self._tracks[whose] = Track(*whose, name, self._began.ticks)
            self._read(track, head, final=final or not alive)

    def _read(self, track: Track, head: int, *, final: bool) -> None:
        """Up to the head that was seen, not to where it is by now: a fast writer is not chased."""
        first = track.first_wanted(head, final=final)
        while first is not None:
            message = m.TraceRead(self._session, track.domid, track.incarnation, first)
            try:
                slots = Slots(*self._connection.call(message))
            except HypercallError as error:
                if error.errno != errno.ENOENT:
                    raise
                return
            if not slots.untrusted_bytes:
                return
            track.take(slots, Moment.now(self._clock).ticks, final=final)
            if track.next == first or track.next >= head:
                return  # what comes next is still in the making, or for the next look
            first = track.first_wanted(head, final=final)


def summary_of(track: Track) -> dict[str, Any]:
    """One track for programs."""
    return {
        "domid": track.domid,
        "incarnation": track.incarnation,
        "name": track.name,
        "records": len(track.events),
        "lost": track.lost,
        "torn": track.torn,
        "senseless": track.senseless,
        "spoiled": track.spoiled,
    }


def is_hypervisor(track: Track) -> bool:
    return (track.domid, track.incarnation) == HYPERVISOR
