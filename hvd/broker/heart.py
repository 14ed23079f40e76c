"""Raises each domain's heartbeat, looks whether it was taken, and says who hangs.

Nothing of it is in the tables: a broker that dies takes this with it; the next begins anew with every domain. What it
finds ends a domain through a command.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import suppress

from hvd.broker.bells import Bells
from hvd.broker.domain import Domain, Life
from hvd.broker.heartbeats import Doing, Evidence, Pulse, hangs, interrupted, judge
from hvd.broker.process_evidence import Process
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass, field

MS = 1_000_000
GRID_NS = 10 * MS
"""Beats fall on these moments, so that many domains wake the broker together."""


@dataclass(slots=True)
class Beat:
    """One incarnation's heartbeat."""

    domain: Domain
    incarnation: int
    due_ns: int = 0
    pulse: Pulse = field(default_factory=Pulse)
    rung: bool = False
    process: Process | None = None

    @property
    def interval_ns(self) -> int:
        return self.domain.config.heartbeat_ms * MS

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None


class Heart:
    """Every heartbeat there is, by the time at which it is to be looked at."""

    def __init__(self, bells: Bells, new_process: Callable[[int], Process] = Process) -> None:
        self._bells = bells
        self._new_process = new_process
        self._beats: dict[DomId, Beat] = {}
        self._due: list[tuple[int, DomId, int]] = []

    def begin(self, domain: Domain, now_ns: int) -> None:
        """This incarnation runs now: look at it from here on, unless it is to have no heartbeat."""
        self.end(domain.domid)
        if domain.config.heartbeat_ms:
            beat = self._beats[domain.domid] = Beat(domain, domain.incarnation)
            self._schedule(beat, now_ns)

    def end(self, domid: DomId) -> None:
        """Nothing of it is left, or will be; nothing if it has no heartbeat."""
        beat = self._beats.pop(domid, None)
        if beat is not None:
            beat.close()

    def verdict(self, domid: DomId) -> str:
        """How it was found last; empty if it has no heartbeat, or does not run."""
        beat = self._beats.get(domid)
        return beat.pulse.verdict.value if beat is not None and beat.domain.life is Life.RUNNING else ""

    def next_ns(self) -> int | None:
        """When `look` has something to do."""
        while self._due and not self._is_current(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def look(self, now_ns: int) -> Iterator[tuple[Domain, str]]:
        """Who hangs, and why, of those that are due. They are looked at again if nothing ends them."""
        while (due_ns := self.next_ns()) is not None and due_ns <= now_ns:
            beat = self._beats[heapq.heappop(self._due)[1]]
            self._schedule(beat, now_ns)
            if beat.domain.life is not Life.RUNNING or beat.domain.pid is None:
                beat.pulse, beat.rung = Pulse(), False  # it is paused, is dumped, has no process yet
                continue
            why = self._look_at(beat, in_time=now_ns - due_ns <= beat.interval_ns)
            if why:
                yield beat.domain, why

    def _schedule(self, beat: Beat, now_ns: int) -> None:
        beat.due_ns = -(-(now_ns + beat.interval_ns) // GRID_NS) * GRID_NS
        heapq.heappush(self._due, (beat.due_ns, beat.domain.domid, beat.incarnation))

    def _is_current(self, entry: tuple[int, DomId, int]) -> bool:
        due_ns, domid, incarnation = entry
        beat = self._beats.get(domid)
        return beat is not None and (beat.due_ns, beat.incarnation) == (due_ns, incarnation)

    def _look_at(self, beat: Beat, *, in_time: bool) -> str:
        """A broker that comes too late was kept from running, as everybody may have been: it judges nobody."""
        taken = not beat.rung or self._bells.has_taken(beat.domain)
        why = ""
        if taken:
            beat.pulse = judge(beat.pulse, None)
            beat.close()
        elif in_time:
            beat.pulse = judge(beat.pulse, self._evidence(beat))
            why = hangs(beat.pulse, beat.interval_ns, serves=beat.domain.ready and self._bells.serves(beat.domain))
        else:
            beat.pulse = interrupted(beat.pulse)
        if taken:
            beat.rung = True
            self._bells.ring(beat.domain)
        return why

    def _evidence(self, beat: Beat) -> Evidence:
        if beat.process is None and beat.domain.pid is not None:
            with suppress(OSError):  # it has just ended, or is hidden from us
                beat.process = self._new_process(beat.domain.pid)
        if beat.process is None:
            return Evidence(Doing.UNKNOWN)
        doing, cpu_ns, steps = beat.process.look()
        waited_for = doing in (Doing.ASLEEP, Doing.NAPPING) and self._bells.is_waited_for(beat.domain)
        return Evidence(doing, cpu_ns, steps, waited_for)
