"""A client of XenStore's socket that measures: requests one at a time, or so many in flight, for a given time."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Self

from hvd.transport import xs_wire
from hvd.transport._native import Histogram
from hvd.transport.errors import HvdError
from hvd.transport.xs_wire import Type

REPLY_DEADLINE_S = 10.0
RECEIVE_BYTES = 1 << 16


class StoreClient:
    """One connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(REPLY_DEADLINE_S)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, kind: Type, payload: bytes, tx: int = 0) -> bytes:
        """The payload of the reply; watch events that come before it are passed over. HvdError for an ERROR."""
        self.begin(kind, payload, tx)
        return self.end(kind)

    def begin(self, kind: Type, payload: bytes, tx: int = 0) -> None:
        """The first half of `call`."""
        self._socket.sendall(xs_wire.pack(kind, 1, tx, payload))

    def end(self, kind: Type) -> bytes:
        """The second half."""
        buffer = b""
        while True:
            buffer += self._receive()
            while (found := xs_wire.split(buffer, 0)) is not None:
                message, end = found
                buffer = buffer[end:]
                if message.type == Type.ERROR:
                    raise HvdError(f"{kind.name}: {message.payload.decode(errors='replace')}")
                if message.type != Type.WATCH_EVENT:
                    return message.payload

    def write_all(self, paths: list[str], in_flight: int = 256) -> None:
        """Give each of these nodes a value."""
        for at in range(0, len(paths), in_flight):
            part = paths[at : at + in_flight]
            self._socket.sendall(b"".join(xs_wire.pack(Type.WRITE, 1, 0, f"{path}\0value".encode()) for path in part))
            self._drop(len(part) * len(xs_wire.pack(Type.WRITE, 1, 0, b"OK\0")))

    def rate(self, kind: Type, payload: bytes, for_ns: int, in_flight: int = 1) -> float:
        """Requests a second; all replies are as long as the first."""
        request = xs_wire.pack(kind, 1, 0, payload)
        reply_bytes = len(xs_wire.pack(kind, 1, 0, self.call(kind, payload)))  # it may come in two parts
        done, began = 0, time.perf_counter_ns()
        until = began + for_ns
        while (now := time.perf_counter_ns()) < until:
            self._socket.sendall(request * in_flight)
            self._drop(reply_bytes * in_flight)
            done += in_flight
        return done / (now - began) * 1e9

    def times(self, kind: Type, payload: bytes, for_ns: int) -> Histogram:
        """How long each of as many as fit takes, one after the other."""
        request = xs_wire.pack(kind, 1, 0, payload)
        times = Histogram()

        def once() -> None:
            self._socket.sendall(request)
            self._receive()

        times.time_calls(once, for_ns)
        return times

    def _drop(self, count: int) -> None:
        while count > 0:
            count -= len(self._receive())

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise HvdError(f"no reply of the store in {REPLY_DEADLINE_S:g} s") from None
        if not data:
            raise HvdError("the store has closed the connection")
        return data
