"""The hypercall endpoints: one for each domain, one for toolstack programs, all in the run directory.

A domain's endpoint has a directory of its own, which is all that its sandbox shows of the run directory: the socket
that a new broker puts there appears in it, and nobody else's does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import zmq

from hvd.broker.poller import Poller
from hvd.transport.hypercalls import HypercallServer, public_key, socket_address
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.records import dataclass
from hvd.transport.run_dir import CONTROL, DOMAINS, ENDPOINT

CONNECTIONS_MAX = 64
"""Of one incarnation to one broker. It needs one; libzmq accepts what comes, and aborts when descriptors run out."""


@dataclass(slots=True)
class Place:
    """One domain's endpoint, or its spare's."""

    name: str
    key: bytes
    server: HypercallServer | None = None
    """None: there is only the directory as yet."""
    connections: int = 0


class Endpoints:
    """Bound sockets. Names carry the incarnation, so that the end of an old one cannot unlink its successor's."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        run_dir: str,
        poller: Poller,
        on_ready: Callable[[DomId | None], None],
        on_flood: Callable[[DomId], None],
    ) -> None:
        """`on_ready` is told whose endpoint has something to read (None: the toolstack's); `on_flood` whose is closed.

        That is where a domain has connected more than CONNECTIONS_MAX times.
        """
        self._context = context
        self._poller = poller
        self._on_ready = on_ready
        self._on_flood = on_flood
        self.directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._domains: dict[DomId, Place] = {}
        self._spares: dict[DomId, Place] = {}
        """Connected to already, heard only when they are promoted."""
        self._retired: list[Place] = []
        self._run_dir = Path(run_dir)
        (self._run_dir / DOMAINS).mkdir(mode=0o700, exist_ok=True)
        self.control = HypercallServer(context, socket_address(self.directory, CONTROL), None)
        poller.watch(self.control.fileno(), lambda: on_ready(None))

    def name(self, domid: DomId, incarnation: Incarnation) -> str:
        """The directory below the run directory that the endpoint is in."""
        return f"{DOMAINS}/{domid}.{incarnation}"

    def prepare(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> None:
        """What an incarnation has to know of its endpoint, and the directory that its sandbox shows."""
        self.close(domid)
        self._domains[domid] = self._place(domid, incarnation, secret)

    def open(self, domid: DomId, secret: bytes) -> None:
        """Bind what was prepared."""
        place = self._domains[domid]
        self._hear(domid, self._bind(domid, place, secret))

    def open_spare(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> None:
        """One that is connected to and not heard."""
        self.close_spare(domid)
        place = self._spares[domid] = self._place(domid, incarnation, secret)
        self._bind(domid, place, secret)

    def promote(self, domid: DomId) -> None:
        """The spare's endpoint is the domain's from here on, and heard."""
        self.close(domid)
        self._domains[domid] = self._spares.pop(domid)
        server = self._domains[domid].server
        assert server is not None
        self._hear(domid, server)
        self._on_ready(domid)  # what has come already rings no more

    def make_directory(self, name: str) -> str:
        """A private directory in the run directory, by a path that is short."""
        (self._run_dir / name).mkdir(mode=0o700, exist_ok=True)
        return f"/proc/self/fd/{self.directory}/{name}"

    def directory_of(self, domid: DomId) -> str:
        """The directory of an open endpoint, by a path that is short."""
        return f"/proc/self/fd/{self.directory}/{self._domains[domid].name}"

    def close(self, domid: DomId) -> None:
        self._close(self._domains.pop(domid, None))

    def retire(self, domid: DomId) -> None:
        """Hear nothing more there; `close_retired` closes it."""
        place = self._domains.pop(domid, None)
        if place is not None:
            if place.server is not None:
                self._poller.unwatch(place.server.fileno())
            self._retired.append(place)

    @property
    def retired(self) -> int:
        """How many there are to close."""
        return len(self._retired)

    def close_retired(self) -> None:
        """Closing takes longer than a hypercall: not while somebody waits for what follows a death."""
        while self._retired:
            self._close(self._retired.pop())

    def close_spare(self, domid: DomId) -> None:
        self._close(self._spares.pop(domid, None))

    def _place(self, domid: DomId, incarnation: Incarnation, secret: bytes) -> Place:
        place = Place(self.name(domid, incarnation), public_key(secret))
        directory = self._run_dir / place.name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)  # whatever the umask: a domain has a uid; the run directory is closed
        return place

    def _bind(self, domid: DomId, place: Place, secret: bytes) -> HypercallServer:
        address = socket_address(self.directory, f"{place.name}/{ENDPOINT}")
        server = place.server = HypercallServer(self._context, address, secret, counts_connections=True)
        (self._run_dir / place.name / ENDPOINT).chmod(0o666)
        self._poller.watch(server.connections_fileno(), lambda: self._count_connections(domid, place))
        return server

    def _hear(self, domid: DomId, server: HypercallServer) -> None:
        self._poller.watch(server.fileno(), lambda: self._on_ready(domid))

    def _close(self, place: Place | None) -> None:
        if place is None:
            return
        if place.server is not None:
            self._poller.unwatch(place.server.fileno())
            self._poller.unwatch(place.server.connections_fileno())
            place.server.close()
        shutil.rmtree(self._run_dir / place.name, ignore_errors=True)

    def _count_connections(self, domid: DomId, place: Place) -> None:
        """Closing the endpoint ends every connection to it, at once: the domain's end may take longer."""
        assert place.server is not None
        place.connections += place.server.connections()
        if place.connections > CONNECTIONS_MAX:
            for among in (self._domains, self._spares):
                if among.get(domid) is place:
                    self._close(among.pop(domid))
                    self._on_flood(domid)

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
