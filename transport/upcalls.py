"""A domain's end of its upcall socket: what the broker tells it unasked (birth, to run, descriptors, watch events).

Over it go, too, the hypercalls that a domain makes while it comes to life, and their answers: so nothing of that waits
for the handshake of its endpoint. And those that it makes when a backend has died, since they are answered sooner here.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from typing import Any, NamedTuple, NoReturn

from hvd.transport.call_words import CallWords
from hvd.transport.codec import unpack_reply
from hvd.transport.descriptors import receive_message
from hvd.transport.errors import HvdError, PeerFault

AHEAD = "ahead"
"""Calls that were carried out for a domain that is about to run, with their answers: [entry, value, descriptors] each.
RUN brings them too, and all where one message takes them."""
BIRTH, RUN, DESCRIPTORS, EVENT = "birth", "run", "descriptors", "event"
TOOLSTACK = "toolstack"
"""The token of the watch that a domain has from birth: on what the toolstack changes below `device` and `control`."""
REPLY, TOO_LARGE = "reply", "too large"
HURRY, HURRY_CALLS = "hurry", 64
"""A backend of the domain's has died: until a moment, and so many times, it is heard here as when it comes to life."""
REPLY_BYTES_MAX = 32_768
"""Of a reply that goes over the upcall socket; a larger one has to be fetched over the endpoint."""


class WatchEvent(NamedTuple):
    """Something has changed at this path, or below."""

    path: str
    token: str
    keys: dict[str, bytes] | None = None
    """What the directory of the watched node held when it was sent, where that is brought."""


class UpcallTimeout(HvdError):
    """What the broker announced did not arrive in time."""


class UpcallsBroken(BaseException):
    """What the hypervisor sent could not be taken: most likely this domain had no descriptor left for it.

    It cannot know any more what it holds, and it is no fault of whichever peer it was about. So nobody on the way
    catches this: the domain ends, and what it held is taken back.
    """


class ReplyTooLarge(HvdError):
    """A hypercall was carried out, and its reply waits at the endpoint for whoever asks again."""


class UpcallReceiver:
    """Sorts what arrives on the upcall socket: descriptors by the hypercall they answer, events in order, each once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._descriptors: dict[int, list[int]] = {}
        self._events: deque[tuple[int, WatchEvent]] = deque()
        """Read and not taken up yet, with their numbers."""
        self._birth: tuple[dict[str, Any], list[int]] | None = None
        self._may_run = False
        self.served: list[tuple[str, str, str]] = []
        """(kind, domid, devid) of the devices whose backends this domain hosts, as it is let run."""
        self._ahead: dict[bytes, tuple[Any, list[int]]] = {}
        """By the call as an entry of a multicall: value and descriptors."""
        self._latest = -1
        """The last hypercall that descriptors came for; a new broker may send them again."""
        self._ended = False
        self._hurry_until_ns = 0
        self._reply: bytes | None = None
        """The newest, until somebody asks for it."""
        self._too_large = -1
        """The newest hypercall whose reply has to be fetched."""
        self.words: CallWords | None = None
        """Where a broker that dies leaves its successor to find what we have taken up; None: nobody looks.

        What we have only read, waiting for an answer, we may not have been rung for, nor ever be.
        """
        self.events_seen = 0
        self.descriptors_received = 0
        """For how many the sender may take it that they are here: repeated ones count once."""
        self.oldest_wanted = 0

    def read_all(self) -> None:
        """Take in everything that is there now."""
        while True:
            try:
                received = self._receive()
            except BlockingIOError:
                return
            if received is None:
                self._ended = True
                return
            self._sort(*received)

    def _receive(self) -> tuple[list[Any], list[int]] | None:
        try:
            return receive_message(self._socket)
        except PeerFault as fault:
            raise UpcallsBroken(f"the hypervisor's message could not be taken: {fault}") from None

    def wait_birth(self) -> tuple[dict[str, Any], list[int]]:
        """Block until the broker says who we are; EOFError if it cannot."""
        while self._birth is None:
            self._read_one("the domain's birth")
        return self._birth

    def wait_run(self) -> None:
        """Block, for ever if the domain was created paused, until its kernel may run; EOFError if it never will."""
        while not self._may_run:
            self._read_one("the domain ran")

    def wait_end(self) -> NoReturn:
        """Block until we are killed; EOFError when nobody is left to do so."""
        while True:
            self._read_one("the domain's end")

    def _read_one(self, what: str) -> None:
        select.select([self._socket], [], [])
        self._take_in(what)

    def _take_in(self, what: str) -> None:
        received = self._receive()
        if received is None:
            raise EOFError(f"the upcall socket closed before {what}")
        self._sort(*received)

    def post(self, message: bytes) -> None:
        """Tell the broker something without an answer; it waits in the socket whatever becomes of the broker."""
        self._socket.send(message)

    def wait_reply(self, sequence: int, timeout_s: float) -> tuple[int, Any, int] | None:
        """(errno, value, descriptors) of the reply to this hypercall; None when there is none within so much time.

        ReplyTooLarge when it has to be fetched over the endpoint, EOFError when none can come any more.
        """
        until = time.monotonic() + timeout_s
        while (reply := self._take_reply(sequence)) is None:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            self._take_in("the reply to a hypercall")
        return reply

    def _take_reply(self, sequence: int) -> tuple[int, Any, int] | None:
        if self._too_large == sequence:
            raise ReplyTooLarge(f"the reply to hypercall {sequence} has more than {REPLY_BYTES_MAX} bytes")
        packed, self._reply = self._reply, None
        answered, *reply = unpack_reply(packed) if packed is not None else (None,)
        return (reply[0], reply[1], reply[2]) if answered == sequence else None

    def take_descriptors(self, sequence: int, count: int, deadline_s: float) -> list[int]:
        """The descriptors that answer hypercall `sequence`; older ones, late or repeated by a new broker, are closed.

        UpcallTimeout past the deadline, EOFError when none can come any more.
        """
        self._forget_before(sequence)
        until = time.monotonic() + deadline_s
        while sequence not in self._descriptors:
            left = max(0.0, until - time.monotonic())
            if self._ended:
                raise EOFError("the upcall socket was closed: the machine has stopped")
            if not select.select([self._socket], [], [], left)[0]:
                promise = f"hypercall {sequence} promised {count} descriptors"
                raise UpcallTimeout(f"{promise}; none came within {deadline_s:g} s")
            self.read_all()
        descriptors = self._descriptors.pop(sequence)
        self._forget_before(sequence + 1)
        if len(descriptors) != count:
            for descriptor in descriptors:
                os.close(descriptor)
            raise UpcallsBroken(f"hypercall {sequence} promised {count} descriptors, {len(descriptors)} came")
        return descriptors

    def take_ahead(self) -> dict[bytes, tuple[Any, list[int]]]:
        """What was answered before it was asked, as we were let run: value and descriptors, ours, by the call."""
        ahead, self._ahead = self._ahead, {}
        return ahead

    @property
    def has_ahead(self) -> bool:
        """Whether there is something for `take_ahead`."""
        return bool(self._ahead)

    def take_hurry(self) -> int:
        """Until when we may ask here, on the monotonic clock in ns, if we were told so since we asked last; else 0."""
        until_ns, self._hurry_until_ns = self._hurry_until_ns, 0
        return until_ns

    def next_event(self) -> WatchEvent | None:
        """The next watch event, or None. Of no path and no token: events were lost, read everything watched again."""
        if not self._events:
            return None
        number, event = self._events.popleft()
        if self.words is not None:
            self.words.see(number)
        return event

    def _forget_before(self, sequence: int) -> None:
        """Nobody waits any more for what answers an older hypercall."""
        self.oldest_wanted = sequence
        for old in [old for old in self._descriptors if old < sequence]:
            for descriptor in self._descriptors.pop(old):
                os.close(descriptor)

    def _sort(self, message: list[Any], descriptors: list[int]) -> None:
        match message:
            case ["birth", dict() as certificate] if self._birth is None:
                self._birth = certificate, descriptors
                return
            case ["ahead", list() as entries] if not self._may_run:
                descriptors = self._take_answers(entries, descriptors)
            case ["run", list() as served, list() as entries] if not self._may_run:
                self.served = [(str(kind), str(domid), str(devid)) for kind, domid, devid in served]
                descriptors = self._take_answers(entries, descriptors)
                self._may_run = True
            case ["descriptors", int() as sequence]:
                if sequence > self._latest:
                    self._latest = sequence
                    self.descriptors_received += len(descriptors)
                    if self.words is not None:
                        self.words.receive(sequence)
                if sequence >= self.oldest_wanted and sequence not in self._descriptors:
                    self._descriptors[sequence] = descriptors
                    return
            case ["hurry", int() as until_ns]:
                self._hurry_until_ns = until_ns
            case ["reply", bytes() as packed]:
                self._reply = packed
            case ["too large", int() as sequence]:
                self._too_large = sequence
            case ["event", int() as number, str() as path, str() as token, *brought]:
                if number > self.events_seen:
                    self.events_seen = number
                    self._events.append((number, WatchEvent(path, token, *brought)))
        for descriptor in descriptors:
            os.close(descriptor)

    def _take_answers(self, entries: list[Any], descriptors: list[int]) -> list[int]:
        """Keep each that is new; the descriptors of those that a new broker repeats are left."""
        left = []
        for call, value, count in entries:
            brought, descriptors = descriptors[:count], descriptors[count:]
            if call in self._ahead:
                left += brought
            else:
                self._ahead[call] = value, brought
        return left + descriptors
