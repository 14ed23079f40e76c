"""What everybody may hear: lifecycle events on a ZeroMQ publisher, and the broker's own log through structlog."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import msgpack
import zmq

from hvd.broker.event_log import Event
from hvd.broker.poller import Poller
from hvd.broker.retries import make_room_for
from hvd.transport.hypercalls import socket_address
from hvd.transport.log_file import append
from hvd.transport.run_dir import EVENTS, HELLO

BUFFERED_MAX = 1000
LOG_AFTER_S = 0.5
"""How long after a broker has come to life its log is opened: to load what writes it takes CPU that births want."""


class BoundedFile(io.TextIOBase):
    """A text file that is rotated at a bound: whoever sends nonsense all day must not fill the disk."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, text: str) -> int:
        append(self._path, text.encode())
        return len(text)


class Publisher:
    """Announces events to subscribers and writes them, with everything else worth a line, to log/broker.log as JSON.

    structlog takes 0.1 s to import: lines wait in a bounded buffer until a thread has loaded it, when boot or recovery
    are over. A broker that is killed before that has written nothing; one that goes by itself has.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: int, poller: Poller) -> None:
        self._socket = context.socket(zmq.XPUB)
        self._socket.linger = 0
        self._socket.xpub_verbose = True
        make_room_for(lambda: self._socket.bind(socket_address(directory, EVENTS)))
        self._buffer: deque[tuple[str, dict[str, Any]]] = deque(maxlen=BUFFERED_MAX)
        self._log: Any = None
        self._newest: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._writing = threading.Lock()
        self._path = f"/proc/self/fd/{directory}/log/broker.log"
        poller.watch(int(self._socket.fd), self.welcome)

    def connect(self, newest: Callable[[], tuple[int, int]]) -> None:
        """`newest` says which boot of the machine this is, and the number of the newest event."""
        self._newest = newest

    def publish(self, event: Event) -> None:
        """One event to whoever listens, and to the log."""
        self._send(event)
        self.welcome()  # sending may take the socket's one sign of a new subscriber
        fields = event._asdict()
        del fields["event"], fields["at_ns"]
        self.log(event.event, **fields)

    def welcome(self) -> None:
        """Greet new subscribers: with this boot's time, and the last number that they have missed."""
        while True:
            try:
                subscription = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if subscription[:1] == b"\1":
                booted_ns, last = self._newest()
                self._send(Event(last, time.time_ns(), HELLO, -1, "", 0, str(booted_ns)))

    def log(self, event: str, **fields: Any) -> None:
        """A line for broker.log, written at the next `write_log`: whoever waits for an answer waits for no disk."""
        self._buffer.append((event, fields | {"timestamp": datetime.now(UTC).isoformat(timespec="microseconds")}))
        if len(self._buffer) == BUFFERED_MAX:
            self.write_log()

    def start_logging(self, after_s: float = LOG_AFTER_S) -> None:
        """Load structlog beside the loop, when whoever waits for us has been served, and write what has waited."""
        threading.Thread(target=self._open_log, args=(after_s,), name="log", daemon=True).start()

    def _open_log(self, after_s: float) -> None:
        time.sleep(after_s)
        import structlog

        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(cast(TextIO, BoundedFile(self._path))),
        )
        self._log = structlog.get_logger()
        self.write_log()

    def finish_log(self) -> None:
        """We go: write what waits, also where what writes it is not loaded yet."""
        self.write_log()
        with self._writing:
            for event, fields in self._buffer if self._log is None else ():
                append(self._path, f"{json.dumps(fields | {'event': event, 'level': 'info'})}\n".encode())

    def write_log(self) -> None:
        """Write what waits. The loop and the thread that loads structlog may both be here: line by line, in order."""
        while self._buffer and self._log is not None:
            with self._writing:
                event, fields = self._buffer.popleft() if self._buffer else ("", {})
                if event:
                    self._log.info(event, **fields)

    def _send(self, event: Event) -> None:
        with contextlib.suppress(zmq.Again):  # who does not read fast enough will miss a number, and ask for it
            self._socket.send(msgpack.packb(event), zmq.NOBLOCK)
