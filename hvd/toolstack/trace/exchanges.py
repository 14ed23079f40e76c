"""Which record of one domain belongs to which record of another: ports to channels, requests to their responses.

A domain names its own ports and nothing else, and the broker says which channel each of them is. So whatever a hostile
domain records joins only to the other ends of its own channels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hvd.toolstack.trace.track import Event, Track
from hvd.transport.ids import DomId
from hvd.transport.trace import Kind

MESSAGES_MAX: Final = 262_144
"""Messages of one track that are joined: a record may claim 65,535 of them."""
RING_INDEX_BITS: Final = 0xFFFF_FFFF
MESSAGE_KINDS: Final = frozenset({Kind.REQUEST_OUT, Kind.REQUEST_IN, Kind.RESPONSE_OUT, Kind.RESPONSE_IN})


@dataclass(frozen=True, slots=True)
class Place:
    """Where something happened: a track, a port of its domain, and when."""

    track: int
    port: int
    ticks: int


@dataclass(slots=True)
class Exchange:
    """One request and its response, as far as both ends recorded them."""

    channel: int
    id: int
    asked: Place | None = None
    taken: Place | None = None
    answered: Place | None = None
    received: Place | None = None
    asked_again: int | None = None
    """When the same request was put into the ring again, for another backend."""

    @property
    def joined(self) -> bool:
        """Whether both ends know of it."""
        return self.asked is not None and self.taken is not None


class Channels:
    """Which channel a domain's port was, at what time."""

    def __init__(self, broker_events: Iterable[Event]) -> None:
        self._since: dict[tuple[DomId, int], list[tuple[int, int]]] = {}
        self._ends: dict[int, dict[int, DomId]] = {}
        for event in broker_events:
            if event.kind is Kind.PORT_BOUND:
                channel, domid = event.id >> 32, DomId(event.id & RING_INDEX_BITS)
                self._since.setdefault((domid, event.port), []).append((event.ticks, channel))
                self._ends.setdefault(channel, {})[event.count] = domid

    def at(self, domid: DomId, port: int, ticks: int) -> int | None:
        """The channel of a port at that time, or None."""
        since = self._since.get((domid, port), [])
        found = bisect_right(since, ticks, key=lambda entry: entry[0])
        return since[found - 1][1] if found else None

    def peer(self, channel: int, domid: DomId) -> DomId | None:
        """Whom the domain reaches through it."""
        return next((end for end in self._ends.get(channel, {}).values() if end != domid), None)


@dataclass(frozen=True, slots=True)
class Hypercall:
    """One that the broker carried out; `ended_ticks` None: it died meanwhile."""

    caller: DomId
    number: int
    sequence: int
    began_ticks: int
    ended_ticks: int | None
    errno: int = 0


def hypercalls(broker_events: Iterable[Event]) -> Iterator[Hypercall]:
    """One after the other, because the broker has one thread."""
    begun: Event | None = None
    for event in broker_events:
        if event.kind is Kind.HYPERCALL:
            if begun is not None:
                yield Hypercall(DomId(begun.port), begun.count, begun.id, begun.ticks, None)
            begun = event
        elif event.kind is Kind.HYPERCALL_DONE and begun is not None:
            yield Hypercall(DomId(begun.port), begun.count, begun.id, begun.ticks, event.ticks, event.count)
            begun = None


def exchanges(tracks: list[Track], channels: Channels) -> list[Exchange]:
    """Every request with what became of it, in the order in which they were asked."""
    found: list[Exchange] = []
    open_: dict[tuple[int, int], Exchange] = {}
    messages = [message for index, track in enumerate(tracks) for message in _messages(index, track, channels)]
    messages.sort(key=lambda message: (message[0].ticks, message[1]))
    for place, kind, channel, id_ in messages:
        exchange = open_.get((channel, id_))
        if exchange is None or kind is Kind.REQUEST_OUT:
            if exchange is not None:
                exchange.asked_again = place.ticks
            exchange = open_[channel, id_] = Exchange(channel, id_)
            found.append(exchange)
        match kind:
            case Kind.REQUEST_OUT:
                exchange.asked = place
            case Kind.REQUEST_IN:
                exchange.taken = place
            case Kind.RESPONSE_OUT:
                exchange.answered = place
            case _:
                exchange.received = place
                del open_[channel, id_]
    return found


def _messages(index: int, track: Track, channels: Channels) -> Iterator[tuple[Place, Kind, int, int]]:
    """One for each message that a record speaks of: place, kind, channel, id."""
    left = MESSAGES_MAX
    for event in track.events:
        if event.kind not in MESSAGE_KINDS:
            continue
        channel = channels.at(track.domid, event.port, event.ticks)
        if channel is None:
            continue
        place = Place(index, event.port, event.ticks)
        count = min(max(event.count, 1), left)
        left -= count
        for i in range(count):
            yield place, event.kind, channel, event.id if event.count == 0 else (event.id + i) & RING_INDEX_BITS
        if not left:
            return


def notifications(tracks: list[Track], channels: Channels) -> list[tuple[Place, Place]]:
    """(notified, taken): each event with the last notification before it, which it may stand for several of."""
    rung: dict[tuple[int, DomId], Place] = {}
    pairs = []
    marks = [
        (event.ticks, index, event)
        for index, track in enumerate(tracks)
        for event in track.events
        if event.kind in (Kind.NOTIFY, Kind.EVENT)
    ]
    for ticks, index, event in sorted(marks, key=lambda mark: mark[0]):
        domid = tracks[index].domid
        channel = channels.at(domid, event.port, ticks)
        if channel is None:
            continue
        peer = channels.peer(channel, domid)
        if event.kind is Kind.NOTIFY and peer is not None:
            rung[channel, peer] = Place(index, event.port, ticks)
        elif event.kind is Kind.EVENT and (notified := rung.pop((channel, domid), None)) is not None:
            pairs.append((notified, Place(index, event.port, ticks)))
    return pairs
