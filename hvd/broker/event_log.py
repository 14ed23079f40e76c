"""What happened, in the order in which it happened: numbered, and the last of it kept for whoever did not hear.

Numbers are given while a command is applied, so that a replayed journal numbers alike. An event is published when its
command is in the journal; who misses a number, because a broker died or he read too slowly, asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

KEPT_MAX = 1024
"""Events that are kept; whoever is further behind is told how many he has missed."""
DETAIL_CHARS_MAX = 1000
PAGE_MAX = 128
"""Events that one hypercall brings."""


class Event(NamedTuple):
    """One event as it is published and kept."""

    number: int
    at_ns: int
    """Wall clock, when its command began; the clock as it was set when the machine booted."""
    event: str
    domid: int
    """-1: it is about the machine."""
    name: str
    incarnation: int
    detail: str


class EventLog:
    """The last events, and the host's time of the command that is being applied."""

    def __init__(self, now_ns: int, wall_base_ns: int = 0) -> None:
        """`wall_base_ns`: the wall clock at the host's time 0."""
        self.now_ns = now_ns
        self._wall_base_ns = wall_base_ns
        self.last = 0
        """The number of the newest one."""
        self.kept: deque[Event] = deque(maxlen=KEPT_MAX)
        """The last ones, in order."""

    def add(self, event: str, domid: int, name: str, incarnation: int, detail: str) -> Event:
        """Number and keep it."""
        self.last += 1
        cut = detail if len(detail) <= DETAIL_CHARS_MAX else detail[: DETAIL_CHARS_MAX - 1] + "…"
        made = Event(self.last, self._wall_base_ns + self.now_ns, event, domid, name, incarnation, cut)
        self.kept.append(made)
        return made

    def after(self, number: int) -> list[Event]:
        """The first PAGE_MAX of those kept that have higher numbers, in order."""
        return list(self._after(number))

    def _after(self, number: int) -> Iterator[Event]:
        first = self.last - len(self.kept)
        start = max(0, number - first)
        for place in range(start, min(start + PAGE_MAX, len(self.kept))):
            yield self.kept[place]
