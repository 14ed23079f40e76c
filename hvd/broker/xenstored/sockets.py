"""XenStore's sockets: one that is dom0's for the host's programs, and one of each domain, which it finds in its root.

A socket is its domain's: who can connect to it is that domain, as with hypercalls. The listening ones are held by the
machine, so that whoever connects while there is no broker waits for the next one. Connections end with their broker,
and with them their watches and transactions.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from hvd.broker.held import HeldDescriptors, spare_store_key, store_key
from hvd.broker.poller import Poller
from hvd.broker.xenstored.connection import Connection
from hvd.broker.xenstored.doors import Log, StoreDoors
from hvd.broker.xenstored.peers import domain_of
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import STORE_CONNECTIONS_MAX, STORE_CONNECTIONS_SHARED, STORE_HOST_CONNECTIONS_MAX
from hvd.transport.run_dir import STORE_SOCKET

HOST: Final = None
"""Whose socket it is: a domain's by domid, or the host's, whose clients are dom0 as well."""
RECEIVE_BYTES = 16 * 1024
LISTEN_BACKLOG = 128

Living = Callable[[], Mapping[int, DomId]]
"""The domains by the pids of their processes."""


class SocketLine:
    """One accepted client."""

    pulls = False

    def __init__(self, client: socket.socket, poller: Poller, readable: Callable[[], None],
                 writable: Callable[[], None], closed: Callable[[], None]) -> None:  # fmt: skip
        client.setblocking(False)
        self._client = client
        self._poller = poller
        self._handlers = readable, writable
        self._closed = closed
        self._expects = False, False

    def receive(self) -> bytes:
        try:
            untrusted = self._client.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            raise EOFError from None
        if not untrusted:
            raise EOFError
        return untrusted

    def send(self, data: bytes) -> int:
        try:
            return self._client.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise EOFError from None

    def expect(self, *, reading: bool, writing: bool) -> None:
        if self._expects == (reading, writing):
            return
        self._expects = reading, writing
        descriptor = self._client.fileno()
        if reading:
            self._poller.watch(descriptor, self._handlers[0])
        self._poller.watch_writable(descriptor, self._handlers[1] if writing else None)
        if not reading:
            self._poller.unwatch_readable(descriptor)

    def close(self, fault: PeerFault | None) -> None:
        self._poller.unwatch(self._client.fileno())
        self._client.close()
        self._closed()


class StoreSockets:
    """All listening sockets of one broker, and how many connections each has."""

    def __init__(self, held: HeldDescriptors, poller: Poller, doors: StoreDoors, living: Living, log: Log) -> None:
        self._held = held
        self._poller = poller
        self._doors = doors
        self._living = living
        self._log = log
        self._count: Counter[DomId | None] = Counter()
        self._last = 1

    def listen(self, owner: DomId | None, directory: str) -> None:
        """Accept connections at a socket in this directory: a new one, or the one that a dead broker left."""
        key = store_key(owner)
        if key not in self._held.by_key:
            self._held.hold(key, [_bound(f"{directory}/{STORE_SOCKET}", anybody=owner is not HOST)])
        descriptor = self._held.by_key[key][0]
        self._poller.watch(descriptor, lambda: self._accept(owner, descriptor))

    def make_ready(self, domid: DomId, directory: str) -> None:
        """The one of a domain's spare, which nobody hears yet: to be there when the spare takes over takes no time."""
        key = spare_store_key(domid)
        if key not in self._held.by_key:
            self._held.hold(key, [_bound(f"{directory}/{STORE_SOCKET}", anybody=True)])

    def promote(self, domid: DomId) -> None:
        """What was its spare's is the domain's, to `listen` to; nothing if there was none. OSError: it is gone."""
        key = spare_store_key(domid)
        if key in self._held.by_key:
            try:
                self._held.rename(key, store_key(domid))
            except OSError:
                self._held.drop(key)
                raise

    def release_spare(self, domid: DomId) -> None:
        """Nothing if there is none."""
        self._held.drop(spare_store_key(domid))

    def release(self, domid: DomId) -> None:
        """The domain is gone, and its socket with it."""
        key = store_key(domid)
        if key in self._held.by_key:
            self._poller.unwatch(self._held.by_key[key][0])
            self._held.drop(key)

    def _accept(self, owner: DomId | None, descriptor: int) -> None:
        listening = socket.socket(fileno=descriptor)
        try:
            client, _ = listening.accept()
        except OSError:  # it has gone again, or the host has no descriptor left, and it waits
            return
        finally:
            listening.detach()
        domid = DOM0 if owner is HOST else owner
        if owner is not HOST:
            self._doors.on_work(owner)
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
        spare = self._count.total() - self._count[HOST] < STORE_CONNECTIONS_SHARED
        return "" if owner is HOST or count == 0 or spare else f"domains have {STORE_CONNECTIONS_SHARED} open"

    def _open(self, owner: DomId | None, domid: DomId, client: socket.socket) -> None:
        self._last += 1
        self._count[owner] += 1
        connection = Connection(domid, -self._last if owner is HOST else self._last)
        line = SocketLine(
            client, self._poller, lambda: self._doors.readable(connection), lambda: self._doors.writable(connection),
            lambda: self._count.subtract([owner]),
        )  # fmt: skip
        self._doors.open(connection, line)


def _bound(path: str, *, anybody: bool) -> int:
    """A listening socket at this path, in place of what was there. OSError: there can be none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as listening:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listening.bind(path)
        os.chmod(path, 0o666 if anybody else 0o600)  # a domain has a uid of its own, and the directory is its own
        listening.listen(LISTEN_BACKLOG)
        return listening.detach()
