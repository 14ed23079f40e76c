"""Lifecycle events as they happen: numbered by the broker, each told once and none left out, whatever brokers die.

News come over a ZeroMQ subscription. They are lost when a broker dies over them, when it had published them before we
were connected to it, or when we read too slowly. A gap in the numbers, or a greeting that is further than we are,
tells; what is missing is then asked for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

import msgpack
import zmq

from hvd.toolstack.cluster.errors import NotReached, NotRunning
from hvd.transport.hypercalls import socket_address
from hvd.transport.run_dir import EVENTS, HELLO

__all__ = ["CREATED", "HELLO", "KINDS", "MISSED", "EventStream", "LifecycleEvent"]

CREATED, MISSED = "created", "missed"
KINDS = (
    CREATED, "starting", "ready", "paused", "unpaused", "shutting down", "signalled", "console", "denied",
    "renamed", "configured", "memory target", "memory max", "memory", "attached", "detached", "detach refused",
    "hangs", "dumping core", "core dumped", "died", "reaped", "backing off", "failed", "group restarts", "group failed",
    "destroyed", "spare stands by", "spare died", "spare given up",
    "active", "fault injected", "fault over", "booted", "broker restarted", "zygote restarted", MISSED,
)  # fmt: skip
"""What happens, in the words of `LifecycleEvent.event`; `hello` is no event but a broker's greeting."""
HELLO_DEADLINE_S = 10.0
LAST_NEWS_MS = 100
"""What the broker published just before the machine ended may still be on its way."""
HEED_SIGNALS_S = 1.0
"""No wait is longer: a signal that comes between Python's last look for one and the wait is heeded behind that."""
UNASKED_MAX = 500
"""So many events in a row, without a pause, and the publisher may have run out of room behind the last of them: ask."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One piece of news about a domain, or (domid -1) about the machine."""

    event: str
    """One of KINDS (missed: `detail` says how many are not kept any more), or hello, whose number is not its own."""
    domid: int
    name: str
    incarnation: int
    detail: str
    at_ns: int
    """Wall clock, when it happened, by the clock as it was set when the machine booted."""
    number: int = 0
    """From 1 on since the machine booted, without gaps but for what is missed."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        names = ("number", "event", "domid", "name", "incarnation", "detail", "at_ns")
        return {name: getattr(self, name) for name in names}


class EventStream:
    """An endless iterator of events; it ends when the machine does. Also a context manager."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        directory: int,
        machine_pidfd: int,
        ask: Callable[[int], dict[str, Any]],
        after: int | None = None,
    ) -> None:
        """Returns when the broker has greeted us: from then on nothing is missed.

        `ask` brings a page of the events after a number. `after`: begin behind that one, and not with what comes.
        """
        self._machine_pidfd = machine_pidfd
        self._ask = ask
        self._seen = after
        self._booted = ""
        self._waiting: deque[LifecycleEvent] = deque()
        self._in_a_row = 0
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
        while not self._booted:
            message = self._receive(until)
            if message is None:
                raise NotReached(f"the broker has not answered within {HELLO_DEADLINE_S:g} s; `hvd info` looks at it")
            if message[2] == HELLO:
                self._greeted(message)
                self._waiting.popleft()  # the first greeting is no news

    def next(self, deadline_s: float | None = None) -> LifecycleEvent:
        """The next event. NotReached when none comes in time; NotRunning when the machine has ended."""
        event = self.next_until(None if deadline_s is None else time.monotonic() + deadline_s)
        if event is None:
            raise NotReached(f"no event within {deadline_s:g} s")
        return event

    def next_until(self, until: float | None) -> LifecycleEvent | None:
        """The next event; None when the monotonic clock has reached `until`. NotRunning when the machine has ended."""
        while not self._waiting:
            if self._in_a_row >= UNASKED_MAX and not self._socket.poll(0):
                self._catch_up()
                continue
            message = self._receive(until)
            if message is None:
                return None
            self._take(message)
        return self._waiting.popleft()

    def up_to_now(self) -> list[LifecycleEvent]:
        """What has happened and was not taken yet. The broker is asked: nothing of it is still on its way."""
        self._catch_up()
        news = list(self._waiting)
        self._waiting.clear()
        return news

    def _receive(self, until: float | None) -> list[Any] | None:
        while True:
            left_s = HEED_SIGNALS_S if until is None else min(HEED_SIGNALS_S, max(0.0, until - time.monotonic()))
            ready = dict(self._poller.poll(ceil(left_s * 1000)))
            if self._socket in ready or (ready and self._socket.poll(LAST_NEWS_MS)):
                message: list[Any] = msgpack.unpackb(self._socket.recv())
                return message
            if ready:
                raise NotRunning("the machine has stopped")
            if until is not None and time.monotonic() >= until:
                return None

    def _take(self, message: list[Any]) -> None:
        number, event = message[0], message[2]
        seen = self._seen or 0
        self._in_a_row += 1
        if event == HELLO:
            self._greeted(message)
        elif number == seen + 1:
            self._append(message)
        elif number > seen and not self._catch_up():
            self._say_missed(message)
            self._append(message)

    def _greeted(self, message: list[Any]) -> None:
        """A broker that we had not met: perhaps of another boot, whose numbers begin anew."""
        last, booted = message[0], message[6]
        first, rebooted = not self._booted, bool(self._booted) and booted != self._booted
        self._booted = booted
        if rebooted:
            self._seen = 0
        elif first and self._seen is None:
            self._seen = last
        self._waiting.append(self._made(message))
        if last > (self._seen or 0):
            self._catch_up()

    def _catch_up(self) -> bool:
        """Ask for everything behind what we have seen; False when nobody is left to ask."""
        self._in_a_row = 0
        while True:
            try:
                page = self._ask(self._seen or 0)
            except NotRunning:
                return False
            if str(page["booted_ns"]) != self._booted:
                return True  # of another boot, whose greeting is on its way
            for message in page["events"]:
                if message[0] > (self._seen or 0) + 1:
                    self._say_missed(message)
                self._append(message)
            if (self._seen or 0) >= page["last"]:
                return True

    def _say_missed(self, message: list[Any]) -> None:
        missed = message[0] - (self._seen or 0) - 1
        text = f"{missed} events before this one are not kept any more"
        self._waiting.append(self._made([message[0] - 1, message[1], MISSED, -1, "", 0, text]))

    def _append(self, message: list[Any]) -> None:
        self._seen = message[0]
        self._waiting.append(self._made(message))

    def _made(self, message: list[Any]) -> LifecycleEvent:
        number, at_ns, event, domid, name, incarnation, detail = message
        return LifecycleEvent(event, domid, name, incarnation, detail, at_ns, number)

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
