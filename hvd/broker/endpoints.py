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
from hvd.transport.run_dir import CONTROL, DOMAINS, ENDPOINT

CONNECTIONS_MAX = 64
"""Of one incarnation to one broker. It needs one; libzmq accepts what comes, and aborts when descriptors run out."""


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
        self._connections: dict[DomId, int] = {}
        self.directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._domains: dict[DomId, HypercallServer] = {}
        self._keys: dict[DomId, bytes] = {}
        self._names: dict[DomId, str] = {}
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
        name = self._names[domid] = self.name(domid, incarnation)
        directory = self._run_dir / name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)  # whatever the umask: a domain has a uid; the run directory is closed
        self._keys[domid] = public_key(secret)

    def open(self, domid: DomId, secret: bytes) -> None:
        """Bind what was prepared."""
        name = self._names[domid]
        address = socket_address(self.directory, f"{name}/{ENDPOINT}")
        server = self._domains[domid] = HypercallServer(
            self._context, address, secret, counts_connections=True
        )
        self._connections[domid] = 0
        (self._run_dir / name / ENDPOINT).chmod(0o666)
        self._poller.watch(server.fileno(), lambda: self._on_ready(domid))
        self._poller.watch(server.connections_fileno(), lambda: self._count_connections(domid))

    def close(self, domid: DomId) -> None:
        server = self._domains.pop(domid, None)
        if server is not None:
            self._poller.unwatch(server.fileno())
            self._poller.unwatch(server.connections_fileno())
            server.close()
        if domid in self._names:
            shutil.rmtree(self._run_dir / self._names.pop(domid), ignore_errors=True)

    def _count_connections(self, domid: DomId) -> None:
        """Closing the endpoint ends every connection to it, at once: the domain's end may take longer."""
        self._connections[domid] += self._domains[domid].connections()
        if self._connections[domid] > CONNECTIONS_MAX:
            self.close(domid)
            self._on_flood(domid)

    def public_key(self, domid: DomId) -> bytes:
        return self._keys[domid]

    def server(self, domid: DomId | None) -> HypercallServer | None:
        """The endpoint of a domain, if it has one; None: the toolstack's."""
        return self.control if domid is None else self._domains.get(domid)
