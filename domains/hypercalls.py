"""A domain's hypercalls: over its upcall socket while it comes to life, over its endpoint from then on.

And for a moment over the socket again when a backend of its has died: they are answered sooner there.

The upcall socket is there at birth. The endpoint's connection takes threads, a handshake of several round trips through
them, and 1 MiB: who has asked for something while it came to life has devices, will ask again, and begins it when it is
ready. Who has not may never ask, and begins it with its first question; until then room is kept for it, since its
kernel may use up what it takes. A spare has time for it while it stands by.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from hvd.domains.ahead import Ahead
from hvd.domains.connection_room import ConnectionRoom
from hvd.transport.call_words import CallWords
from hvd.transport.hypercalls import HypercallClient, HypercallTimeout, Requests, unanswered
from hvd.transport.messages import DomainReady, Multicall
from hvd.transport.process import start_sleeper
from hvd.transport.upcalls import HURRY_CALLS, ReplyTooLarge, UpcallReceiver

LINGER_S = 0.1
"""From when a driver domain takes up its devices: in that time it is ready, and has attached what waits for it."""
UNBOUNDED = sys.maxsize
AGAIN_S = 1.0
"""A broker that dies may take a reply with it that it had not sent: the next is asked again, and carries out nothing
twice."""


class Hypercalls:
    """What a domain calls the hypervisor by. One at a time."""

    def __init__(
        self, upcalls: UpcallReceiver, connect: Callable[[Requests], HypercallClient], words: CallWords
    ) -> None:
        """`connect` makes the endpoint's client, which goes on with these numbers. `words`: where we say so."""
        self.requests = Requests(upcalls)
        self._upcalls = upcalls
        self._connect = connect
        self._words = words
        self._client: HypercallClient | None = None
        self._room: ConnectionRoom | None = None
        self._has_asked = self._has_called_there = False
        """Anything at all; at the endpoint."""
        self._is_ready = self._has_sleeper = False
        self._lingers_until = 0.0
        """Over the upcall socket, on the monotonic clock; 0: it does not."""
        self._rests = False
        self._left = UNBOUNDED
        """How many of them yet."""
        self.ahead: Ahead | None = None
        """What a multicall may ask has been answered."""
        self.before: Callable[[], None] | None = None
        """Called ahead of each hypercall: what a spare waits in until it is the domain."""

    @property
    def connection(self) -> HypercallClient:
        """The endpoint's client, made now if there is none yet. Threads are made: the sandbox has to be on."""
        if self._client is None:
            if self._room is not None:
                self._room.give_up()
            self._client = self._connect(self.requests)
        return self._client

    def call(self, message: Any) -> Any:
        """As `HypercallClient.call`."""
        if self.before is not None:
            self.before()
        if self.ahead is not None and isinstance(message, Multicall):
            return self.ahead.ask(message, self._call)
        return self._call(message)

    def _call(self, message: Any) -> Any:
        self._words.begin()
        try:
            return self._make(message)
        finally:
            self._words.end()

    def _make(self, message: Any) -> Any:
        if self._is_ready and not self.lingers:
            self._has_called_there = True
            return self.connection.call(message)
        packed, name = self.requests.pack(message), type(message).__name__
        self._left -= 1
        try:
            reply = self._ask(packed, name)
        except ReplyTooLarge:
            reply = None
        if reply is not None:
            return self.requests.result(name, *reply)
        self._has_called_there, self._lingers_until = True, 0.0
        return self.connection.ask(packed, name)

    def post(self, message: Any) -> None:
        """Make a hypercall that nobody answers; before the domain is ready."""
        if self.before is not None:
            self.before()
        self._upcalls.post(self.requests.pack(message))

    def linger(self) -> None:
        """Go on over the upcall socket for a moment: whoever serves devices has guests that wait for it by now.

        Not whoever has called at its endpoint: that is where it is heard from then on.
        """
        if not self._has_called_there:
            self._lingers_until, self._rests, self._left = time.monotonic() + LINGER_S, False, UNBOUNDED

    def hurry(self, until_ns: int) -> None:
        """As `linger`, no longer than the hypervisor hears us there, nor oftener."""
        until = min(time.monotonic() + LINGER_S, until_ns / 1e9)
        self._lingers_until, self._rests, self._left = until, False, HURRY_CALLS

    @property
    def lingers(self) -> bool:
        """Whether that moment is not over."""
        connected = self._rests and self._client is not None and self._client.is_connected
        if connected or self._left <= 0 or time.monotonic() >= self._lingers_until:
            self._lingers_until = 0.0
        return bool(self._lingers_until)

    def rest(self) -> None:
        """Those who waited have been seen to: connect. Until that is done calls go over the socket."""
        self._rests = True
        if self._is_ready:
            _ = self.connection
        else:
            self._lingers_until = 0.0

    def ready(self) -> None:
        """Say that the domain does what it is for.

        By now it has a thread that the machine can see its end by, whenever it connects.
        """
        self.have_sleeper()
        connects = self._has_asked and not self.lingers
        if self._client is None and not connects:
            self._room = ConnectionRoom()
        self.post(DomainReady())
        self._is_ready = True
        if connects:
            _ = self.connection  # behind the word: who has waited for that need not wait for this

    def have_sleeper(self) -> None:
        """A thread that the machine can see our end by; a spare has it made while there is time."""
        if not self._has_sleeper:
            self._has_sleeper = True
            start_sleeper()

    def _ask(self, packed: bytes, name: str) -> tuple[int, Any, int] | None:
        """Until there is an answer; None: nobody hears whoever is ready here. HypercallTimeout past the deadline."""
        self._has_asked = True
        until = time.monotonic() + self.requests.deadline_s
        while True:
            with contextlib.suppress(BlockingIOError):  # it is full of what no broker has heard yet
                self._upcalls.post(packed)
            reply = self._upcalls.wait_reply(self.requests.sequence, AGAIN_S)
            if reply is not None:
                return reply
            if self._is_ready:
                self._lingers_until = 0.0
                return None
            if time.monotonic() > until:
                raise HypercallTimeout(unanswered(name, self.requests.deadline_s))
