"""Who is heard at its upcall socket though it is ready: whose backend has died, for a moment and so many calls.

It is told until when, and keeps to it, so that nobody waits for an answer where nothing is heard; it is heard for as
long again, since what it has asked in time may come late. Nobody is told twice who was not heard of in between: he may
be paused, and his socket is for other things.
"""

from __future__ import annotations

import time

from hvd.transport.ids import DomId
from hvd.transport.records import dataclass
from hvd.transport.upcalls import HURRY_CALLS

TOLD_NS = 1_000_000_000
"""For so long a domain may begin to ask: it does so as soon as it has read that."""


@dataclass(slots=True)
class _Hurry:
    until_ns: int
    """On the monotonic clock."""
    left: int
    """Calls."""


class Hurries:
    """Of this broker's domains."""

    def __init__(self) -> None:
        self._running: dict[DomId, _Hurry] = {}
        self._silent: set[DomId] = set()
        """Told, and not heard of since."""

    def begin(self, domid: DomId) -> int | None:
        """Until when it is to be told that it may ask; None: it is told nothing."""
        if domid in self._silent:
            return None
        self._silent.add(domid)
        self.expect(domid)
        return self._running[domid].until_ns - TOLD_NS

    def expect(self, domid: DomId) -> None:
        """A broker before us may have told it."""
        self._running[domid] = _Hurry(time.monotonic_ns() + 2 * TOLD_NS, 2 * HURRY_CALLS)

    def is_on(self, domid: DomId) -> bool:
        """Whether it is heard."""
        hurry = self._running.get(domid)
        if hurry is not None and (hurry.left <= 0 or time.monotonic_ns() >= hurry.until_ns):
            del self._running[domid]
        return domid in self._running

    def called(self, domid: DomId) -> None:
        """It has asked something here."""
        self.lives(domid)
        if domid in self._running:
            self._running[domid].left -= 1

    def lives(self, domid: DomId) -> None:
        """It was heard of."""
        self._silent.discard(domid)

    def forget(self, domid: DomId) -> None:
        """This incarnation is over."""
        self._running.pop(domid, None)
        self._silent.discard(domid)
