"""Lifecycle events as the broker publishes them, from a moment on from which none is missed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

import msgpack
import zmq

from hvd.toolstack.cluster.errors import NotReached, NotRunning
from hvd.transport.hypercalls import socket_address
from hvd.transport.run_dir import EVENTS

HELLO = "hello"
HELLO_DEADLINE_S = 10.0
LAST_NEWS_MS = 100
"""What the broker published just before the machine ended may still be on its way."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One piece of news about a domain, or (domid -1) about the machine."""

    event: str
    """created, starting, ready, paused, unpaused, shutting down, signalled, console, died, backing off, failed,
    destroyed, renamed, configured, attached, detached, detach refused;
    hello and broker restarted, after which older news may have been missed."""
    domid: int
    name: str
    incarnation: int
    detail: str
    at_ns: int
    """Wall clock, in the broker."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return {name: getattr(self, name) for name in ("event", "domid", "name", "incarnation", "detail", "at_ns")}


class EventStream:
    """An endless iterator of events; it ends when the machine does. Also a context manager."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: int, machine_pidfd: int) -> None:
        """Returns when the broker has greeted us: from then on nothing is missed while we read fast enough."""
        self._machine_pidfd = machine_pidfd
        self._socket = context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.rcvhwm = 100_000
        self._socket.reconnect_ivl = 1
        self._socket.reconnect_ivl_max = 32
        self._socket.subscribe(b"")
        self._socket.connect(socket_address(directory, EVENTS))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(machine_pidfd, zmq.POLLIN)
        try:
            self._wait_hello(time.monotonic() + HELLO_DEADLINE_S)
        except BaseException:
            self.close()
            raise

    def _wait_hello(self, until: float) -> None:
        while (event := self.next_until(until)) is None or event.event != HELLO:
            if event is None:
                raise NotReached(f"the broker has not answered within {HELLO_DEADLINE_S:g} s; `hvd info` looks at it")

    def next(self, deadline_s: float | None = None) -> LifecycleEvent:
        """The next event. NotReached when none comes in time; NotRunning when the machine has ended."""
        event = self.next_until(None if deadline_s is None else time.monotonic() + deadline_s)
        if event is None:
            raise NotReached(f"no event within {deadline_s:g} s")
        return event

    def next_until(self, until: float | None) -> LifecycleEvent | None:
        """The next event; None when the monotonic clock has reached `until`. NotRunning when the machine has ended."""
        while True:
            left_ms = None if until is None else ceil(max(0.0, until - time.monotonic()) * 1000)
            ready = dict(self._poller.poll(left_ms))
            if self._socket in ready or (ready and self._socket.poll(LAST_NEWS_MS)):
                return LifecycleEvent(**msgpack.unpackb(self._socket.recv()))
            if ready:
                raise NotRunning("the machine has stopped")
            if until is not None and time.monotonic() >= until:
                return None

    def __iter__(self) -> Iterator[LifecycleEvent]:
        return self

    def __next__(self) -> LifecycleEvent:
        try:
            return self.next()
        except NotRunning:
            raise StopIteration from None

    def close(self) -> None:
        self._socket.close(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
