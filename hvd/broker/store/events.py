"""Watch events that wait to be taken: in firing order, each once, and bounded for every domain.

An event says "look again", so one that waits already says nothing new by coming twice (XSA-349). A domain whose bound
is reached hears of further changes only by the path of its watch: it loses detail, never the fact. As those are at most
one for each watch that existed then, and no new watch is taken while the bound is reached, the queue has an end.
"""

from typing import NamedTuple

from hvd.broker.store.watches import Watch
from hvd.transport.ids import DomId


class WatchEvent(NamedTuple):
    """Something changed at or below `path`, as the watcher named it."""

    domid: DomId
    path: str
    token: str
    connection: int = 0
    """Of the domain's, the one that watches."""


class Events:
    """The queue of all domains."""

    def __init__(self) -> None:
        self._waiting: dict[WatchEvent, None] = {}
        self._counts: dict[DomId, int] = {}
        self.shortened = 0
        """Events that lost their detail at a bound, ever."""
        self.fired = 0
        """How often a watch was to hear of something, ever, whether it had heard of it already or not."""

    def add(self, watch: Watch, path: str, events_max: int) -> None:
        """`path`, at or below the watch's own, has changed."""
        self.fired += 1
        event = WatchEvent(watch.domid, watch.sees(path), watch.token, watch.connection)
        if event in self._waiting:
            return
        count = self.count(watch.domid)
        if count >= events_max and path != watch.path:
            self.shortened += 1
            event = WatchEvent(watch.domid, watch.sees(watch.path), watch.token, watch.connection)
            if event in self._waiting:
                return
        self._waiting[event] = None
        self._counts[watch.domid] = count + 1

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> list[WatchEvent]:
        """All that wait; they wait no longer."""
        if not self._waiting:
            return []
        taken = list(self._waiting)
        self._waiting = {}
        self._counts = {}
        return taken

    def drop(self, domid: DomId) -> None:
        """Nobody is there any more to take a domain's events."""
        if self._counts.pop(domid, 0):
            self._waiting = {event: None for event in self._waiting if event.domid != domid}

    def drop_connection(self, domid: DomId, connection: int) -> None:
        """Nor those of one of its connections."""
        gone = [event for event in self._waiting if (event.domid, event.connection) == (domid, connection)]
        for event in gone:
            del self._waiting[event]
        if gone:
            self._counts[domid] -= len(gone)

    def count(self, domid: DomId) -> int:
        """How many wait for a domain."""
        return self._counts.get(domid, 0)
