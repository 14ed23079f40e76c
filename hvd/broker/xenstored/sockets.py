"""XenStore's sockets: one that is dom0's for the host's programs, and one of each domain, which it finds in its root.

A socket is its domain's: who can connect to it is that domain, as with hypercalls. The listening ones are held by the
machine, so that whoever connects while there is no broker waits for the next one. Connections end with their broker,
and with them their watches and transactions.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from hvd.broker.held import HeldDescriptors, store_key
from hvd.broker.poller import Poller
from hvd.broker.store import WatchEvent
from hvd.broker.xenstored.connection import Connection, TooFarBehind
from hvd.broker.xenstored.peers import domain_of
from hvd.transport import xs_wire
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import (
    STORE_BACKLOG_BYTES_MAX,
    STORE_CONNECTIONS_MAX,
    STORE_CONNECTIONS_SHARED,
    STORE_HOST_CONNECTIONS_MAX,
)
from hvd.transport.run_dir import STORE_SOCKET
from hvd.transport.xs_wire import Message, Type

HOST: Final = None
"""Whose socket it is: a domain's by domid, or the host's, whose clients are dom0 as well."""
MESSAGES_PER_TURN = 8
RECEIVE_BYTES = 16 * 1024
LISTEN_BACKLOG = 128

CarryOut = Callable[[Connection, Message], tuple[int, bytes] | None]
"""Has one request carried out: type and payload of the reply, None when its domain is gone."""
Log = Callable[[str, DomId], None]
Living = Callable[[], Mapping[int, DomId]]
"""The domains by the pids of their processes."""


class StoreSockets:
    """All listening sockets and connections of one broker."""

    def __init__(
        self, held: HeldDescriptors, poller: Poller, carry_out: CarryOut, living: Living, log: Log
    ) -> None:
        self._held = held
        self._poller = poller
        self._carry_out = carry_out
        self._living = living
        self._log = log
        self._sockets: dict[Connection, socket.socket] = {}
        self._by_number: dict[tuple[DomId, int], Connection] = {}
        self._count: Counter[DomId | None] = Counter()
        self._last = 1
        self._serving: Connection | None = None
        self._unflushed: set[Connection] = set()
        self._ready: deque[Connection] = deque()
        """Those that have said more than they had a turn for."""
        self._ended: list[Connection] = []

    # ---- listening ---------------------------------------------------------------------------------------------------

    def listen(self, owner: DomId | None, directory: str) -> None:
        """Accept connections at a socket in this directory: a new one, or the one that a dead broker left."""
        key = store_key(owner)
        if key not in self._held.by_key:
            self._held.hold(key, [_bound(f"{directory}/{STORE_SOCKET}", anybody=owner is not HOST)])
        descriptor = self._held.by_key[key][0]
        self._poller.watch(descriptor, lambda: self._accept(owner, descriptor))

    def release(self, domid: DomId) -> None:
        """The domain is gone: so are its connections and its socket."""
        key = store_key(domid)
        if key in self._held.by_key:
            self._poller.unwatch(self._held.by_key[key][0])
            self._held.drop(key)
        self.disconnect(domid)

    def disconnect(self, domid: DomId) -> None:
        """End a domain's own connections."""
        for connection in [each for each in self._sockets if each.domid == domid and each.number > 0]:
            self._close(connection)

    def _accept(self, owner: DomId | None, descriptor: int) -> None:
        listening = socket.socket(fileno=descriptor)
        try:
            client, _ = listening.accept()
        except OSError:  # it has gone again, or the host has no descriptor left, and it waits
            return
        finally:
            listening.detach()
        domid = DOM0 if owner is None else owner
        if refusal := self._refusal(owner, client):
            self._log(f"a connection to its XenStore socket is refused: {refusal}", domid)
            client.close()
        else:
            self._open(owner, domid, client)

    def _refusal(self, owner: DomId | None, client: socket.socket) -> str:
        """Why this client is not served; "" for one that is."""
        inside = domain_of(client, self._living())
        if inside is not None and inside != owner:
            return f"it comes from domain {inside}"
        most = STORE_HOST_CONNECTIONS_MAX if owner is HOST else STORE_CONNECTIONS_MAX
        if (count := self._count[owner]) >= most:
            return f"{most} are open"
        spare = len(self._sockets) - self._count[HOST] < STORE_CONNECTIONS_SHARED
        return "" if owner is HOST or count == 0 or spare else f"domains have {STORE_CONNECTIONS_SHARED} open"

    def _open(self, owner: DomId | None, domid: DomId, client: socket.socket) -> None:
        self._last += 1
        connection = Connection(domid, -self._last if owner is HOST else self._last)
        client.setblocking(False)
        self._count[owner] += 1
        self._sockets[connection] = client
        self._by_number[domid, connection.number] = connection
        self._poller.watch(client.fileno(), lambda: self._receive(connection))

    def _close(self, connection: Connection) -> None:
        client = self._sockets.pop(connection)
        connection.closed = True
        del self._by_number[connection.domid, connection.number]
        self._count[HOST if connection.number < 0 else connection.domid] -= 1
        self._unflushed.discard(connection)
        self._poller.unwatch(client.fileno())
        client.close()
        if connection.left_traces:
            self._ended.append(connection)

    def take_ended(self) -> list[Connection]:
        """Connections that have ended since the last call, and may have watches and transactions."""
        ended, self._ended = self._ended, []
        return ended

    # ---- requests ----------------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether somebody waits for another turn."""
        return bool(self._ready)

    def serve_ready(self) -> None:
        """A turn for each that waits for one."""
        for _ in range(len(self._ready)):
            connection = self._ready.popleft()
            connection.queued = False
            if not connection.closed:
                self._serve(connection)

    def _receive(self, connection: Connection) -> None:
        if connection.queued:
            return
        try:
            untrusted = self._sockets[connection].recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            untrusted = b""
        if not untrusted:
            self._close(connection)
            return
        connection.take_in(untrusted)
        self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        """As many of its messages as a turn has; then what there is to send goes out at once."""
        self._serving = connection
        more = False
        try:
            more = self._take_turn(connection)
        except PeerFault as fault:
            self._log(f"its connection to XenStore is closed: {fault}", connection.domid)
            self._close(connection)
        finally:
            self._serving = None
        if not connection.closed:
            self._flush(connection)
        if not connection.closed and more and not connection.is_stalled:
            self._queue(connection)

    def _take_turn(self, connection: Connection) -> bool:
        """Whether there may be more where these came from."""
        for _ in range(MESSAGES_PER_TURN):
            if connection.is_stalled:
                return True
            message = connection.next_message()
            if message is None:
                return False
            self._answer(connection, message)
            if connection.closed:
                return False
        return True

    def _queue(self, connection: Connection) -> None:
        if not connection.queued:
            connection.queued = True
            self._ready.append(connection)

    def _answer(self, connection: Connection, message: Message) -> None:
        before = connection.waiting
        reply = self._carry_out(connection, message)
        if connection.closed:
            return
        if reply is None:
            self._close(connection)
            return
        data = xs_wire.pack(reply[0], message.req_id, message.tx_id, reply[1])
        first = message.type == Type.WATCH  # all other replies come behind the events that the request has fired
        connection.add_reply(data, before=before if first else None)

    # ---- what goes out -----------------------------------------------------------------------------------------------

    def add_event(self, event: WatchEvent) -> None:
        """A watch of a connection has fired; it goes out at the next `flush`. Nothing if the connection has gone."""
        connection = self._by_number.get((event.domid, event.connection))
        if connection is None:
            return
        payload = xs_wire.strings(event.path.encode(), event.token.encode("utf-8", "surrogateescape"))
        try:
            connection.add_event(xs_wire.pack(Type.WATCH_EVENT, 0, 0, payload))
        except TooFarBehind:
            bound = f"{STORE_BACKLOG_BYTES_MAX} bytes of watch events wait for it"
            self._log(f"its connection to XenStore is closed: {bound}, and it does not read", connection.domid)
            self._close(connection)
        else:
            self._unflushed.add(connection)

    def flush(self) -> None:
        """Send what events there are."""
        for connection in self._unflushed - {self._serving}:
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        self._unflushed.discard(connection)
        if connection.waiting:
            client = self._sockets[connection]
            try:
                connection.sent(client.send(connection.outgoing()))
            except BlockingIOError:
                pass
            except OSError:
                self._close(connection)
                return
            if connection.waiting:
                self._poller.watch_writable(client.fileno(), lambda: self._resume(connection))
                if connection.is_stalled:
                    self._poller.unwatch_readable(client.fileno())

    def _resume(self, connection: Connection) -> None:
        """It has read something."""
        client = self._sockets[connection]
        self._poller.watch_writable(client.fileno(), None)
        self._flush(connection)
        if not connection.closed and not connection.is_stalled:
            self._poller.watch(client.fileno(), lambda: self._receive(connection))
            self._queue(connection)


def _bound(path: str, *, anybody: bool) -> int:
    """A listening socket at this path, in place of what was there. OSError: there can be none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as listening:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listening.bind(path)
        os.chmod(path, 0o666 if anybody else 0o600)  # a domain has a uid of its own, and the directory is its own
        listening.listen(LISTEN_BACKLOG)
        return listening.detach()
