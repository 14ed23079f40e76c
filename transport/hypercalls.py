"""The two ends of the hypercall path over ZeroMQ: one endpoint a domain, CURVE with a key per endpoint, exactly once.

The endpoint is the identity: the broker binds one for each domain, and only that domain is told its public key. A
caller has one hypercall in flight; each carries a sequence number. When the connection comes back after a broker's
death, or no answer comes for a while, the call in flight is sent again, and answered from the journal if it had been
carried out. Of a domain that asks nothing the connection outlives its broker (hvd/broker/connections.py): it connects
anew with its next hypercall.
"""

from __future__ import annotations

import errno as errno_names
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import ceil
from struct import Struct
from typing import Any, NamedTuple, cast

import zmq
from zmq.utils import z85

from hvd.transport.codec import pack_request, unpack_reply
from hvd.transport.errors import HvdError
from hvd.transport.limits import MESSAGE_BYTES_MAX
from hvd.transport.upcalls import UpcallReceiver

ENDPOINT_BACKLOG = 16
FRAME_BYTES_MAX = MESSAGE_BYTES_MAX + 4096
"""What is a little too large is told so; what is larger ends its connection. It is less than malloc asks the kernel
for by itself: what libzmq keeps of a message that does not end is in an arena (hvd/broker/hoards.py)."""
QUEUED_MAX = 2
"""Messages that wait in a connection, either way: a caller has one call in flight, and may have sent it again. Replies
beyond are dropped: whoever reads none shall not have the broker keep them."""
NOBLOCK, MORE, EVENTS, POLLIN = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.EVENTS), int(zmq.POLLIN)
ROUTING_ID, LINGER, RCVHWM, RECONNECT_IVL, RECONNECT_IVL_MAX = map(
    int, (zmq.ROUTING_ID, zmq.LINGER, zmq.RCVHWM, zmq.RECONNECT_IVL, zmq.RECONNECT_IVL_MAX)
)
SERVER_KEY, PUBLIC_KEY, SECRET_KEY = map(int, (zmq.CURVE_SERVERKEY, zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY))
"""As plain numbers: pyzmq's flags are enums, whose every `&` and `|` costs as much as the call they are for. Options
that are set as attributes go through them too: of the pages that a domain's client writes to, one in eight."""
_EVENT = Struct("=Hi")
"""Of a monitor: what has happened, and to which descriptor."""
AGAIN_LEAST_S, AGAIN_MOST_S = 0.25, 2.0
"""When a hypercall that is not answered is sent again: the first time, and each time twice as long up to this."""
LAST_REPLY_MS = 100
"""A reply that was sent just before the machine ended may still be on its way."""


class HypercallError(HvdError):
    """The broker refused: `errno` for programs, text for people."""

    def __init__(self, errno: int, text: str, call: str) -> None:
        super().__init__(f"{call}: {text} ({errno_names.errorcode.get(errno, errno)})")
        self.errno = errno
        self.text = text


class HypercallTimeout(HvdError):
    """The broker has not answered before the deadline, or cannot any more."""


_monitors = count()


class ConnectionEvent(NamedTuple):
    """A connection was accepted, or has ended."""

    accepted: bool
    descriptor: int
    """libzmq's; it may be another's by now."""


def _readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a receive would bring something."""
    return bool(cast(int, socket.getsockopt(EVENTS)) & POLLIN)


def public_key(secret: bytes) -> bytes:
    """The Z85 public half of a 32-byte secret key."""
    return zmq.curve_public(z85.encode(secret))


def socket_address(directory_fd: int, name: str) -> str:
    """An ipc address inside an open directory: short however long its path is (Unix sockets end at 108 bytes)."""
    return f"ipc:///proc/self/fd/{directory_fd}/{name}"


class HypercallServer:
    """The broker's end of one endpoint."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        secret: bytes | None,
        *,
        counts_connections: bool = False,
    ) -> None:
        """OSError when the host has no socket left, or no such directory. Counting them takes two more sockets."""
        self.path = address.removeprefix("ipc://")
        """As whoever is accepted there finds it to be his own."""
        self._monitor: zmq.Socket[bytes] | None = None
        try:
            self._socket = context.socket(zmq.ROUTER)
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"no socket for {address}: {error.strerror}") from None
        self._socket.linger = 0
        self._socket.router_handover = True
        self._socket.maxmsgsize = FRAME_BYTES_MAX
        self._socket.backlog = ENDPOINT_BACKLOG
        self._socket.rcvhwm = self._socket.sndhwm = QUEUED_MAX
        if secret is not None:
            self._socket.curve_server = True
            self._socket.curve_secretkey = z85.encode(secret)
        try:
            if counts_connections:
                self._monitor = self._count_connections(context)
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, f"cannot bind {address}: {error.strerror}") from None

    def _count_connections(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        """What says so for each. Without a bound: ZeroMQ's thread would wait for us, and we, closing, for that."""
        address = f"inproc://connections-{next(_monitors)}"  # never one again: a closed one's name is free only later
        self._socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED)
        monitor = context.socket(zmq.PAIR)
        monitor.linger = monitor.rcvhwm = 0
        monitor.connect(address)
        _readable(monitor)  # its descriptor tells of news only since somebody found none
        return monitor

    def wait(self, timeout_ms: int) -> bool:
        """Sleep until there is something to receive; False when there is nothing in time."""
        return bool(self._socket.poll(timeout_ms))

    def fileno(self) -> int:
        """Readable when `receive` may have something; read it until None."""
        return int(self._socket.fd)

    def connections_fileno(self) -> int:
        """Readable when somebody may have connected, or gone: then ask `connections`."""
        assert self._monitor is not None
        return int(self._monitor.fd)

    def connections(self) -> list[ConnectionEvent]:
        """What has become of connections since it was asked last."""
        assert self._monitor is not None
        events = []
        while _readable(self._monitor):
            event, descriptor = _EVENT.unpack(self._monitor.recv_multipart()[0])
            if event != zmq.EVENT_MONITOR_STOPPED:
                events.append(ConnectionEvent(event == zmq.EVENT_ACCEPTED, descriptor))
        return events

    def receive(self) -> tuple[bytes, bytes] | None:
        """(client, untrusted request bytes), or None when there is nothing. A message in several parts is empty."""
        if not _readable(self._socket):
            return None
        client, body = self._socket.recv(NOBLOCK), self._socket.recv(NOBLOCK, copy=False)
        if not body.more:
            return client, body.bytes
        self._socket.recv_multipart(NOBLOCK)
        return client, b""

    def reply(self, client: bytes, reply: bytes) -> None:
        """Answer; a client that has gone or does not read loses its reply, and asks again."""
        try:
            self._socket.send(client, MORE)
            self._socket.send(reply, NOBLOCK)
        except zmq.ZMQError:
            return

    def close(self) -> None:
        if self._monitor is not None:
            self._socket.monitor(None, 0)
            self._monitor.close(0)
        self._socket.close(0)

    def begin_close(self) -> None:
        """Let libzmq's threads end it: until `has_closed`, call nothing else."""
        self._socket.close(0)

    def has_closed(self, timeout_ms: int) -> bool:
        """Whether they have, in so long: its connections have ended, and all that was kept of them is let go of.

        The monitor is told of its own end by what a socket does last.
        """
        while self._monitor is not None and self._monitor.poll(timeout_ms):
            event, _ = _EVENT.unpack(self._monitor.recv_multipart()[0])
            if event == zmq.EVENT_MONITOR_STOPPED:
                self._monitor.close(0)
                self._monitor = None
        return self._monitor is None


class Requests:
    """A caller's numbering: the bytes of its hypercalls, and what becomes of their answers, whatever they go over."""

    def __init__(self, upcalls: UpcallReceiver | None = None, deadline_s: float = 10.0) -> None:
        self.upcalls = upcalls
        self.deadline_s = deadline_s
        self.sequence = 0
        """Of the last hypercall."""

    def pack(self, message: Any) -> bytes:
        """The next one; it acknowledges what has arrived."""
        self.sequence += 1
        seen, received = (self.upcalls.events_seen, self.upcalls.descriptors_received) if self.upcalls else (0, 0)
        return pack_request(message, self.sequence, seen, received)

    def result(self, name: str, errno: int, value: Any, count: int) -> Any:
        """What the last one returns: its value, or (value, descriptors); HypercallError when it was refused."""
        if errno:
            raise HypercallError(errno, str(value), name)
        if not count or self.upcalls is None:
            return value
        return value, self.upcalls.take_descriptors(self.sequence, count, self.deadline_s)


class HypercallClient:
    """A caller's end. Not for two threads at once."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        server_key: bytes | None,
        *,
        requests: Requests | None = None,
        name: bytes = b"domain",
        deadline_s: float = 10.0,
        end: int | None = None,
        broker: Callable[[], int] = lambda: 0,
    ) -> None:
        """`requests`: of a caller that has made hypercalls before, another way; its deadline counts.

        `end`: a descriptor that becomes readable when nobody is left to answer (the machine's pidfd). `broker`: the
        number of the one that answers, for who is not told of its death by the connection's end.
        """
        self.requests = requests or Requests(deadline_s=deadline_s)
        self._address = address
        self._broker = broker
        self._name, self._followed = name, 0
        self._socket = context.socket(zmq.DEALER)
        options: list[tuple[int, int | bytes]] = [(ROUTING_ID, name), (LINGER, 0), (RECONNECT_IVL, 1)]
        if end is None:
            options.append((RECONNECT_IVL_MAX, 32))  # domains may be many; the toolstack looks every 1 to 2 ms
        if server_key is not None:
            public, secret = zmq.curve_keypair()
            options += [(SERVER_KEY, server_key), (PUBLIC_KEY, public), (SECRET_KEY, secret)]
        for option, value in options:
            self._socket.setsockopt(option, value)
        self._monitor = self._watch_connection(context)
        self._connect()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._end = end
        if end is not None:
            self._poller.register(end, zmq.POLLIN)

    def _watch_connection(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        """What says so when it is there, and when it has ended."""
        address = f"inproc://connection-{next(_monitors)}"
        self._socket.monitor(address, zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        monitor = context.socket(zmq.PAIR)
        monitor.setsockopt(LINGER, 0)
        monitor.setsockopt(RCVHWM, 0)  # else libzmq's thread waits for who asks nothing while brokers come and go
        monitor.connect(address)
        return monitor

    def _connect(self) -> None:
        """Whoever serves by the time that there is a connection, it is no older broker than this."""
        broker, self._handshakes = self._broker(), 0
        self._socket.connect(self._address)
        self._connected_to = broker

    def _follow(self) -> bool:
        """Connect anew if another broker serves than the one that we may be connected to, which is dead; whether.

        By another name: of two connections by one name, of which libzmq may have made one meanwhile, the broker's end
        of either would be closed without a word.
        """
        if self._broker() == self._connected_to:
            return False
        with suppress(zmq.ZMQError):  # a signal has ended an earlier try half-way: there is no connection
            self._socket.disconnect(self._address)
        self._followed += 1
        self._socket.setsockopt(ROUTING_ID, b"%b.%d" % (self._name, self._followed))
        self._connect()
        return True

    def call(self, message: Any) -> Any:
        """Make a hypercall; its value, or (value, descriptors) when descriptors come with it.

        HypercallError when refused, HypercallTimeout past the deadline, LocalError when the message is too large.
        """
        return self.ask(self.requests.pack(message), type(message).__name__)

    def ask(self, packed: bytes, name: str) -> Any:
        """`call` of the last of our requests, which may have been sent another way: it is carried out once."""
        self._send(packed)
        return self.requests.result(name, *self._await_reply(packed, name))

    def _send(self, packed: bytes) -> None:
        while _readable(self._monitor):
            self._hear_connection()
        self._follow()
        self._socket.send(packed)

    def _await_reply(self, packed: bytes, name: str) -> tuple[int, Any, int]:
        now = time.monotonic()
        until, patience_s = now + self.requests.deadline_s, AGAIN_LEAST_S
        again = now + patience_s
        while True:
            now = time.monotonic()
            left = max(0.0, until - now)
            ready = dict(self._poller.poll(ceil(max(0.0, min(until, again) - now) * 1000)))
            if self._socket in ready:
                sequence, errno, value, count = unpack_reply(self._socket.recv())
                if sequence == self.requests.sequence:
                    return errno, value, count
            lost = not ready and time.monotonic() >= again
            if lost:
                self._follow()
            if lost or (self._monitor in ready and self._hear_connection()):
                patience_s = min(2 * patience_s, AGAIN_MOST_S)
                again = time.monotonic() + patience_s
                with suppress(zmq.Again):  # there is no connection now: the next one is a reason of its own
                    self._socket.send(packed, NOBLOCK)
            if self._end in ready and not self._socket.poll(LAST_REPLY_MS):
                raise HypercallTimeout(f"{name}: the machine has stopped")
            if not left:
                break  # only now, having looked once more: we may have been stopped all the while
        raise HypercallTimeout(unanswered(name, self.requests.deadline_s))

    @property
    def is_connected(self) -> bool:
        """Whether it has been by now, to the broker that serves; if not, it is on the way."""
        while _readable(self._monitor):
            self._hear_connection()
        self._follow()
        return self._handshakes > 0

    def _hear_connection(self) -> bool:
        """Whether it leads to another broker now, which may never have seen the call in flight.

        libzmq has made it again, or a new broker has ended the one to its predecessor and we have connected anew.
        """
        event, _ = _EVENT.unpack(self._monitor.recv_multipart()[0])  # zmq.utils.monitor loads asyncio: 30 ms of a boot
        if event == zmq.EVENT_DISCONNECTED:
            return self._follow()
        self._handshakes += 1
        return self._handshakes > 1

    def close(self) -> None:
        self._socket.monitor(None, 0)
        self._monitor.close(0)
        self._socket.close(0)


def unanswered(name: str, deadline_s: float) -> str:
    """What a HypercallTimeout says."""
    return f"{name}: the broker has not answered within {deadline_s:g} s; is the machine up (hvd info)?"


def client_name() -> bytes:
    """A routing id that no other client of the same endpoint has."""
    return b"c" + os.urandom(12).hex().encode()
