"""Two clients of XenStore's wire protocol, as plain as can be: by a Unix socket, and by a ring page in a file."""

from __future__ import annotations

import mmap
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from hvd.transport import xs_wire
from hvd.transport.xs_wire import Message, Type

DEADLINE_S = 30.0


class Client:
    """What both have in common: replies and events out of a stream."""

    def __init__(self) -> None:
        self._inbox = b""
        self.events: list[bytes] = []

    def call(self, kind: int, payload: bytes = b"", tx: int = 0, req_id: int = 7) -> Message:
        """One request and its reply; the events that came first are in `events`."""
        self.send(xs_wire.pack(kind, req_id, tx, payload))
        return self.reply()

    def ask(self, kind: int, *words: str, tx: int = 0) -> bytes:
        """A request that must succeed."""
        reply = self.call(kind, xs_wire.strings(*(word.encode() for word in words)), tx)
        assert reply.type == kind, reply
        return reply.payload

    def reply(self) -> Message:
        while (message := self.next_message()).type == Type.WATCH_EVENT:
            self.events.append(message.payload)
        return message

    def event(self) -> bytes:
        """The next event, waited for."""
        if self.events:
            return self.events.pop(0)
        message = self.next_message()
        assert message.type == Type.WATCH_EVENT, message
        return message.payload

    def next_message(self) -> Message:
        until = time.monotonic() + DEADLINE_S
        while (found := xs_wire.split(self._inbox, 0)) is None:
            assert time.monotonic() < until, f"no whole message; there is {self._inbox!r}"
            self._inbox += self.receive()
        message, end = found
        self._inbox = self._inbox[end:]
        return message

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def receive(self) -> bytes:
        raise NotImplementedError


class SocketClient(Client):
    """By a Unix socket."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))

    def __enter__(self) -> SocketClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the daemon has closed the connection")
        return data


class RingClient(Client):
    """By a ring page; `notify` rings the daemon."""

    def __init__(self, page: mmap.mmap, notify: Callable[[], None]) -> None:
        super().__init__()
        self.page = page
        self._notify = notify

    def word(self, at: int, value: int | None = None) -> int:
        if value is not None:
            struct.pack_into("<I", self.page, at, value & 0xFFFFFFFF)
        return int(struct.unpack_from("<I", self.page, at)[0])

    def send(self, data: bytes) -> None:
        until = time.monotonic() + DEADLINE_S
        while data:
            assert time.monotonic() < until, "the ring stays full"
            produced = self.word(xs_wire.REQ_PROD_AT)
            room = xs_wire.RING_BYTES - ((produced - self.word(xs_wire.REQ_CONS_AT)) & 0xFFFFFFFF)
            part, data = data[:room], data[room:]
            for offset, byte in enumerate(part):
                self.page[(produced + offset) % xs_wire.RING_BYTES] = byte
            self.word(xs_wire.REQ_PROD_AT, produced + len(part))
            self._notify()
            if data:
                time.sleep(0.001)  # a ring has no other way to say that there is room: it is polled

    def receive(self) -> bytes:
        consumed, produced = self.word(xs_wire.RSP_CONS_AT), self.word(xs_wire.RSP_PROD_AT)
        count = (produced - consumed) & 0xFFFFFFFF
        if not count:
            time.sleep(0.0005)
            return b""
        data = bytes(self.page[xs_wire.RESPONSES_AT + (consumed + i) % xs_wire.RING_BYTES] for i in range(count))
        self.word(xs_wire.RSP_CONS_AT, produced)
        self._notify()
        return data
