"""The hypercall endpoints: one for each domain, one for toolstack programs, all in the run directory.

A domain's endpoint has a directory of its own, which is all that its sandbox shows of the run directory: the socket
that a new broker puts there appears in it, and nobody else's does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import zmq

from hvd.broker.connections import Connections
from hvd.broker.hoards import HOARD_BYTES_EACH, bytes_in_other_arenas, is_hoard, turns
from hvd.broker.poller import Poller
from hvd.broker.retries import make_room_for
from hvd.transport.hypercalls import HypercallServer, public_key, socket_address
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.run_dir import CONTROL, DOMAINS, ENDPOINT

CONNECTIONS_MAX, CONNECTIONS_AT_ONCE_MAX = 64, 3
"""Of one incarnation to one broker. It needs one; libzmq accepts what comes, and aborts when descriptors run out. At
once: in each there may be replies that it does not read."""
LET_GO_S = 2.0
"""How long libzmq's threads may take to let go of what closed endpoints kept: nobody is served meanwhile."""
RETIRED_MAX, RETIRED_NS = 16, 1_000_000_000
"""So many endpoints of the dead wait to be closed while somebody always asks for something, and so long."""
SCREENS_MAX = 3
"""Hoards that were another's by all appearance as a connection to this endpoint ended. Once that is chance."""


class Place:
    """One domain's endpoint, or its spare's."""

    __slots__ = (
        "bound", "connections", "domid", "ended", "hoard_bytes", "is_kept", "key", "name", "newest", "screens",
        "secret", "server",
    )  # fmt: skip

    def __init__(self, domid: DomId, name: str, secret: bytes) -> None:
        self.domid = domid
        self.name = name
        self.secret = secret
        self.key = public_key(secret)
        self.server: HypercallServer | None = None
        """None: there is only the directory as yet."""
        self.connections = 0
        """Accepted by now."""
        self.ended = 0
        """Of these."""
        self.newest: int | None = None
        """libzmq's descriptor of the last connection, if that has not ended..."""
        self.is_kept = False
        """...and whether it has been given to whoever keeps it."""
        self.bound = 0
        """Times."""
        self.screens = 0
        """Hoards that went as one ended, and another's endpoint was closed."""
        self.hoard_bytes = 0
        """What was let go of as it was closed for a hoard the last time, if that was more than its messages can be."""

    @property
    def is_flooded(self) -> bool:
        """Whether it has been connected to too often, or is too often at once."""
        return self.connections > CONNECTIONS_MAX or self.connections - self.ended > CONNECTIONS_AT_ONCE_MAX


class Endpoints:
    """Bound sockets. Names carry the incarnation, so that the end of an old one cannot unlink its successor's."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        run_dir: str,
        poller: Poller,
        connections: Connections,
        *,
        on_ready: Callable[[DomId | None], None],
        on_flood: Callable[[DomId, bool], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ready` is told whose endpoint has something to read (None: the toolstack's); `on_flood` whose is closed.

        That is where a domain has connected more than CONNECTIONS_MAX times, or CONNECTIONS_AT_ONCE_MAX at once; and
        whether it was its spare that did. `beat` is called while it takes long.
        """
        self._context = context
        self._poller = poller
        self._connections = connections
        self._on_ready = on_ready
        self._on_flood = on_flood
        self._beat = beat
        self.directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._domains: dict[DomId, Place] = {}
        self._spares: dict[DomId, Place] = {}
        """Connected to already, heard only when they are promoted."""
        self._ready: Place | None = None
        """Of a domain that there is not yet: bound, and not heard."""
        self._retired: list[Place] = []
        self._retired_ns = 0
        """When the first of them was."""
        self._closing: list[HypercallServer] = []
        """Closed, and not seen yet to have been let go of by libzmq's threads: each look has those close for good."""
        self._run_dir = run_dir
        _make(f"{run_dir}/{DOMAINS}")
        _remove_unseen(f"{run_dir}/{DOMAINS}")
        self.control = make_room_for(lambda: HypercallServer(context, socket_address(self.directory, CONTROL), None))
        poller.watch(self.control.fileno(), lambda: on_ready(None))

    def name(self, domid: DomId, incarnation: Incarnation) -> str:
        """The directory below the run directory that the endpoint is in."""
        return f"{DOMAINS}/{domid}.{incarnation}"

    def prepare(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> None:
        """What an incarnation has to know of its endpoint, and the directory that its sandbox shows.

        Nothing if that is there: to make it anew would be to take it from the sandbox.
        """
        if domid in self._domains and self._domains[domid].name == self.name(domid, incarnation):
            return
        self.close(domid)
        if self._ready is not None and self._ready.name == self.name(domid, incarnation):
            self._domains[domid], self._ready = self._ready, None
        else:
            self._domains[domid] = self._place(domid, incarnation, secret)

    def open(self, domid: DomId) -> None:
        """Bind what was prepared, if it is not bound, and hear it."""
        place = self._domains[domid]
        self._hear(domid, place.server or self._bind(place))

    def make_ready(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> None:
        """What `prepare` of these numbers takes, in place of what it was for others; nothing if it is there."""
        if self._ready is None or self._ready.name != self.name(domid, incarnation):
            self._close(self._ready)
            self._ready = None
            place = self._place(domid, incarnation, secret)
            self._bind(place)
            self._ready = place

    def open_spare(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> None:
        """One that is connected to and not heard."""
        self.close_spare(domid)
        place = self._spares[domid] = self._place(domid, incarnation, secret)
        self._bind(place)

    def promote(self, domid: DomId) -> None:
        """The spare's endpoint is the domain's from here on, and heard."""
        self.close(domid)
        self._domains[domid] = self._spares.pop(domid)
        server = self._domains[domid].server
        if server is not None:
            self._hear(domid, server)
            self._on_ready(domid)  # what has come already rings no more

    def make_directory(self, name: str) -> str:
        """A private directory in the run directory, by a path that is short."""
        _make(f"{self._run_dir}/{name}")
        return f"/proc/self/fd/{self.directory}/{name}"

    def directory_of(self, domid: DomId) -> str:
        """The directory of an open endpoint, by a path that is short."""
        return f"/proc/self/fd/{self.directory}/{self._domains[domid].name}"

    def directory_of_spare(self, domid: DomId) -> str:
        """The same of its spare's."""
        return f"/proc/self/fd/{self.directory}/{self._spares[domid].name}"

    def close(self, domid: DomId) -> None:
        self._close(self._domains.pop(domid, None))

    def retire(self, domid: DomId) -> None:
        """Hear nothing more there; `close_retired` closes it."""
        place = self._domains.pop(domid, None)
        if place is not None:
            if place.server is not None:
                self._poller.unwatch(place.server.fileno())
            if not self._retired:
                self._retired_ns = time.monotonic_ns()
            self._retired.append(place)

    @property
    def retired(self) -> int:
        """How many there are to close."""
        return len(self._retired)

    @property
    def retired_is_overdue(self) -> bool:
        """Whether they are to be closed though somebody asks for something."""
        return self.retired >= RETIRED_MAX or time.monotonic_ns() - self._retired_ns > RETIRED_NS

    def close_retired(self) -> None:
        """Closing takes longer than a hypercall: not while somebody waits for what follows a death."""
        while self._retired:
            self._close(self._retired.pop())

    def close_spare(self, domid: DomId) -> None:
        self._close(self._spares.pop(domid, None))

    def _place(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> Place:
        place = Place(domid, self.name(domid, incarnation), secret)
        directory = f"{self._run_dir}/{place.name}"
        _make(directory)
        os.chmod(directory, 0o755)  # whatever the umask: a domain has a uid; the run directory is closed
        return place

    def _bind(self, place: Place) -> HypercallServer:
        server = self._bind_unseen(place)
        self._show(place, server)
        return server

    def _bind_unseen(self, place: Place) -> HypercallServer:
        """A new one beside the directory: nobody can connect to it until it is shown. OSError: no room for it."""
        place.bound += 1
        address = socket_address(self.directory, _unseen(place))  # what a server unlinks as it ends
        server = HypercallServer(self._context, address, place.secret, counts_connections=True)
        try:
            os.chmod(f"{self._run_dir}/{_unseen(place)}", 0o666)
        except OSError:
            server.close()
            raise
        return server

    def _show(self, place: Place, server: HypercallServer) -> None:
        """The one that was bound last, in its directory, in place of any other."""
        try:
            os.rename(f"{self._run_dir}/{_unseen(place)}", f"{self._run_dir}/{place.name}/{ENDPOINT}")
        except OSError:
            server.close()
            raise
        place.server = server
        self._poller.watch(server.connections_fileno(), lambda: self._count_connections(place))

    def _hear(self, domid: DomId, server: HypercallServer) -> None:
        self._poller.watch(server.fileno(), lambda: self._on_ready(domid))

    def _close(self, place: Place | None) -> None:
        if place is None:
            return
        if place.server is not None:
            self._end(place)
        _remove(f"{self._run_dir}/{place.name}")

    def _count_connections(self, place: Place) -> None:
        """Closing the endpoint ends every connection to it, at once: the domain's end may take longer.

        Its place stays until then: a spare may be promoted before it has ended, and is deaf.
        """
        assert place.server is not None
        for accepted, descriptor in place.server.connections():
            place.connections += accepted
            place.ended += not accepted
            if accepted:
                place.newest, place.is_kept = descriptor, False
            elif place.newest == descriptor:
                place.newest = None
                self._connections.end(place.name)
        if place.newest is not None and not place.is_kept:
            place.is_kept = True
            self._connections.keep(place.name, place.newest, place.server.path)
        if place.is_flooded:
            self._end(place)
            if place is self._ready:
                self._close(place)
                self._ready = None
            elif self._is_spares(place) or self._domains.get(place.domid) is place:
                self._on_flood(place.domid, self._is_spares(place))

    def hoarder(self) -> tuple[DomId, bool] | None:
        """Whose endpoint has kept one hoard after the other, and whether its spare's; None while that is not known.

        All are closed in turn and bound anew behind it, where all connect and ask again: what is let go of with one was
        kept of its connections, whatever others send meanwhile. Who had most is the last at the next hoard. Then all
        others are closed before it, and what it has more than messages can be is its own: nobody was there any more to
        let go of something in that moment. Or who has screened it SCREENS_MAX times: two could go on for ever, one of
        whom ends a connection as the other loses one.
        """
        self._closing = [one for one in self._closing if not one.has_closed(0)]
        bound = [place for place in (*self._domains.values(), *self._spares.values()) if place.server is not None]
        if not is_hoard(bytes_in_other_arenas(), len(bound)):
            return None
        bound.sort(key=lambda place: place.hoard_bytes)
        likeliest = bound[-1]
        suspected = likeliest.hoard_bytes > 0
        told = self._close_in_turn(bound)
        guilty = [likeliest] if suspected and told and likeliest.hoard_bytes else []
        guilty += [place for place in bound if place.screens >= SCREENS_MAX]
        return (guilty[0].domid, self._is_spares(guilty[0])) if guilty else None

    def _close_in_turn(self, bound: list[Place]) -> bool:
        """Note what each had kept, and bind it anew; whether that says anything: all ended, each in its turn."""
        self.close_retired()  # what they kept would go at any moment
        until = time.monotonic() + LET_GO_S
        is_sure, anew = True, list[tuple[Place, HypercallServer]]()
        rest = list(bound)
        for size in turns(len(bound)):
            self._beat()  # beside load, 400 endpoints took 4 s
            these, rest = rest[:size], rest[size:]
            ended = {place: self._ended(place) for place in rest}
            these = [place for place in these if place.server is not None]  # or it has connected too often meanwhile
            is_sure = self._let_go(self._closing, until) and is_sure
            before, closed = bytes_in_other_arenas(), list[HypercallServer]()
            for place in these:
                with suppress(OSError):  # the host has no socket left for another one: the old one stays
                    anew.append((place, self._bind_unseen(place)))
                    closed.append(self._begin_end(place))
            is_sure = self._let_go(closed, until) and len(closed) == len(these) and is_sure
            fell = before - bytes_in_other_arenas()
            kept = fell if fell > HOARD_BYTES_EACH * len(these) else 0
            screens = [place for place in rest if kept and self._ended(place) > ended[place]]
            for place in screens:
                place.screens += 1
            for place in these:
                place.hoard_bytes = 0 if screens else kept
        for place, server in anew:
            with suppress(OSError):  # its directory is not there any more
                self._show(place, server)
                place.connections = place.ended = 0
                if not self._is_spares(place):
                    self._hear(place.domid, server)
        return is_sure

    def let_go(self) -> bool:
        """Wait for libzmq's threads to be done with all that was closed; whether they were in LET_GO_S."""
        return self._let_go(self._closing, time.monotonic() + LET_GO_S)

    def _let_go(self, closed: list[HypercallServer], until: float) -> bool:
        """Wait for libzmq's threads to be done with these; what they are not done with in time stays in `_closing`."""
        left = [one for one in closed if not one.has_closed(max(0, int((until - time.monotonic()) * 1000)))]
        self._closing = [*left, *(one for one in self._closing if one not in closed)]
        return not left

    def _ended(self, place: Place) -> int:
        """How many of its connections have ended by now."""
        if place.server is not None:
            self._count_connections(place)
        return place.ended

    def _is_spares(self, place: Place) -> bool:
        return self._spares.get(place.domid) is place

    def _end(self, place: Place) -> None:
        """Its connections end, and what they kept is let go of."""
        self._closing.append(self._begin_end(place))

    def _begin_end(self, place: Place) -> HypercallServer:
        """It has none any more. Whoever asks for this waits for its end."""
        server, place.server = place.server, None
        assert server is not None
        self._connections.end(place.name)
        place.newest, place.hoard_bytes = None, 0
        self._poller.unwatch(server.fileno())
        self._poller.unwatch(server.connections_fileno())
        server.begin_close()
        return server

    def public_key(self, domid: DomId) -> bytes:
        return self._domains[domid].key

    def spare_key(self, domid: DomId) -> bytes:
        return self._spares[domid].key

    def server(self, domid: DomId | None) -> HypercallServer | None:
        """The endpoint of a domain, if it has one; None: the toolstack's."""
        if domid is None:
            return self.control
        place = self._domains.get(domid)
        return None if place is None else place.server


def _unseen(place: Place) -> str:
    """Where its server is bound, below the run directory."""
    return f"{place.name}.{ENDPOINT}.{place.bound}"


def _remove_unseen(directory: str) -> None:
    """What a broker had bound, and died before it showed it."""
    for name in os.listdir(directory):
        if f".{ENDPOINT}." in name:
            os.unlink(f"{directory}/{name}")


def _make(directory: str) -> None:
    """If it is not there."""
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)


def _remove(directory: str) -> None:
    """With the sockets in it. (shutil does it for trees of any depth, and takes a boot 1 ms to load.)"""
    with suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
