"""The broker's ends of the domains' upcall sockets: what waits to be written there, and what is read there.

Written are birth, descriptors and replies, and behind them watch events. Read are a domain's hypercalls while it comes
to life and while it takes up a backend that has died, and its fault notice, if a core of it may be wanted.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hvd.broker import core_dumps
from hvd.broker.answers import Descriptors
from hvd.broker.domain import ACTING, Domain
from hvd.broker.held import UPCALL, HeldDescriptors, domain_key
from hvd.broker.hurries import Hurries
from hvd.broker.poller import Poller
from hvd.broker.upcalls import UpcallQueue
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE, drop_first_message, first_message, send_message
from hvd.transport.errors import PeerFault
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import DomId
from hvd.transport.limits import MESSAGE_BYTES_MAX
from hvd.transport.upcalls import DESCRIPTORS, EVENT, HURRY, REPLY, REPLY_BYTES_MAX, TOO_LARGE

POSTS_PER_TURN, TURN_NS = 8, 200_000
"""Hypercalls of one domain before others have their turns, or those behind which it has lasted so long."""
BRINGING_MAX = 16
"""Events that bring what has changed, of those that are sent together; the others come alone, and whoever is told reads
for himself: one write may fire as many watches as a domain has, and each would have a directory read."""
OUTBOX_MAX = 64
"""Messages that may wait for a domain to read its upcall socket; past it the domain is killed."""
OUTBOX_DESCRIPTORS_MAX = 2 * DESCRIPTORS_PER_MESSAGE
"""Descriptors with them, of two hypercalls that bring as many as may be; past it the domain is killed."""


class Outbox:
    """What waits for one domain to read: messages with descriptors of their own.

    What the broker holds may be closed meanwhile, and its number be another domain's pages.
    """

    def __init__(self, held: HeldDescriptors) -> None:
        self._held = held
        self._waiting: deque[tuple[list[Any], list[int]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def overflows(self, descriptors: tuple[int, ...]) -> str:
        """What there would be too much of with one more message; empty: nothing."""
        if len(self._waiting) >= OUTBOX_MAX:
            return f"{OUTBOX_MAX} messages wait"
        waiting = sum(len(own) for _, own in self._waiting)
        if descriptors and waiting + len(descriptors) > OUTBOX_DESCRIPTORS_MAX:
            return f"{waiting} descriptors (at most {OUTBOX_DESCRIPTORS_MAX}) wait"
        return ""

    def add(self, message: list[Any], descriptors: tuple[int, ...]) -> None:
        """OSError, and nothing is added, when the broker can have no more descriptors."""
        self._waiting.append((message, self._held.lend(descriptors)))

    def send_all(self, send: Callable[[list[Any], tuple[int, ...]], None]) -> None:
        """In order; whatever `send` raises leaves what it was raised for, and what is behind that."""
        while self._waiting:
            message, own = self._waiting[0]
            send(message, tuple(own))
            self._waiting.popleft()
            self._held.take_back(own)

    def clear(self) -> None:
        while self._waiting:
            self._held.take_back(self._waiting.popleft()[1])


class UpcallSockets:
    """One socket a domain, found by domid among the held descriptors."""

    def __init__(
        self,
        held: HeldDescriptors,
        poller: Poller,
        log: Callable[..., None],
        *,
        kill: Callable[[DomId], None],
        on_fault: Callable[[Domain, FaultNotice | None], None],
        on_post: Callable[[Domain, bytes], None],
        is_disturbed: Callable[[DomId], bool],
        is_settling: Callable[[DomId], bool],
        read: Callable[[DomId, str], dict[str, bytes] | None],
        on_drop: Callable[[DomId], None],
        ring: Callable[[DomId], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`kill` ends a domain that does not read, or has shut its socket; `ring` raises its upcall event.

        `is_disturbed`: its hypercalls are tampered with, as somebody wants it, at its endpoint. `is_settling`: what it
        has called last is not quite done, and what it calls next waits. `read`: the nodes of a directory as it sees
        them now, for an event that brings them; None: it is told of the event alone. `on_drop` is told who has written
        what is nothing for now: it is work that it makes.
        """
        self._held = held
        self._poller = poller
        self._log = log
        self._kill = kill
        self._on_fault = on_fault
        self._on_post = on_post
        self._is_disturbed = is_disturbed
        self._is_settling = is_settling
        self._read = read
        self._on_drop = on_drop
        self._ring = ring
        self._clock_ns = clock_ns
        self._queues: dict[DomId, UpcallQueue] = {}
        self._outboxes: dict[DomId, Outbox] = {}
        self._by_endpoint: set[DomId] = set()
        """Who has come to life, as far as this broker has seen: what they call comes to their endpoints now."""
        self._hurries = Hurries()
        self._answered: dict[DomId, int] = {}
        """The last hypercall whose descriptors this broker has sent."""
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def connect(self, queues: dict[DomId, UpcallQueue]) -> None:
        """The tables' events, by domid."""
        self._queues = queues

    def listen(self, domain: Domain) -> None:
        """Hear what it writes, for as long as there is something to hear."""
        self._poller.watch(self._socket(domain.domid), lambda: self.hear(domain, TURN_NS))

    def forget(self, domid: DomId) -> None:
        """This incarnation is over; its socket is about to be dropped."""
        self._forget_waiting(domid)
        self._by_endpoint.discard(domid)
        self._hurries.forget(domid)
        self._answered.pop(domid, None)
        if domain_key(domid) in self._held.by_key:
            self._poller.unwatch(self._socket(domid))

    def hurry(self, domain: Domain) -> None:
        """A backend of its has died: what it asks next, it may ask here. It is told so ahead of its watch events.

        Only where that takes no more than a moment: nothing waits for whoever does not read.
        """
        domid = domain.domid
        if domain_key(domid) not in self._held.by_key or self._is_disturbed(domid) or self._outboxes.get(domid):
            return
        until_ns = self._hurries.begin(domid)
        if until_ns is not None:
            self.listen(domain)
            with suppress(OSError):  # it reads nothing, or is dying: whoever tells it something else finds out
                self._send(self._socket(domid), [HURRY, until_ns], ())

    def expect(self, domain: Domain) -> None:
        """Of a new broker: its predecessor may have told it to hurry."""
        self._hurries.expect(domain.domid)

    # ---- what is read ------------------------------------------------------------------------------------------------

    def hear(self, domain: Domain, turn_ns: int | None = None) -> None:
        """Take in what a domain has written to its upcall socket: hypercalls as it comes to life, then a fault notice.

        Hypercalls go from the socket when they are in the journal. A notice stays: the next broker may need it too.
        What is neither for now is nothing of one whose notice may follow, and left lying of anybody else.

        `turn_ns`: behind the hypercall in which it has lasted so long it goes on in another turn.
        """
        domid, reports = domain.domid, core_dumps.reports_faults(domain.config)
        over_ns = None if turn_ns is None else self._clock_ns() + turn_ns
        for number in range(POSTS_PER_TURN):
            if number and over_ns is not None and self._clock_ns() >= over_ns:
                return
            if domain_key(domid) not in self._held.by_key or self._is_settling(domid):
                return  # what it said has ended it, or is not quite done
            untrusted = self._peek(domain)
            if untrusted is None:
                return
            if not untrusted or (reports and FaultNotice.may_be(untrusted)):
                break
            if not FaultNotice.may_be(untrusted) and self._calls_here(domain):
                self._hurries.called(domid)
                self._on_post(domain, untrusted)
            elif domain.ready and not reports:
                break
            else:
                self._on_drop(domid)
            self._drop_first(domain)
        else:
            return
        self._poller.unwatch_readable(self._socket(domid))
        if untrusted and reports:
            self._read_notice(domain, untrusted)

    def _calls_here(self, domain: Domain) -> bool:
        """Who comes to life, and who hurries; others have turns elsewhere."""
        hurries = self._hurries.is_on(domain.domid) and not self._is_disturbed(domain.domid)
        return hurries or self._comes_to_life(domain)

    def _comes_to_life(self, domain: Domain) -> bool:
        """A driver domain that is ready may go on for a moment."""
        lingers = domain.config.driver_domain and domain.domid not in self._by_endpoint
        return not domain.ready or (lingers and not self._is_disturbed(domain.domid))

    def hear_first(self, domain: Domain | None) -> None:
        """What a domain that comes to life has posted comes before what it calls, and before its death."""
        if domain is not None and self._comes_to_life(domain) and domain.life in ACTING:
            self.hear(domain)

    def heard_by_endpoint(self, domid: DomId) -> None:
        """It has called there; when it is ready it does so for good."""
        self._by_endpoint.add(domid)
        self._hurries.lives(domid)

    def _read_notice(self, domain: Domain, untrusted: bytes) -> None:
        try:
            self._on_fault(domain, FaultNotice.parse(untrusted))
        except PeerFault as fault:
            self._log("bad fault notice", domid=domain.domid, reason=str(fault))
            self._on_fault(domain, None)

    def _peek(self, domain: Domain) -> bytes | None:
        """The first message in its upcall socket, None when there is none, b"" when there will be none any more."""
        sock = socket.socket(fileno=self._socket(domain.domid))
        try:
            return first_message(sock, MESSAGE_BYTES_MAX)
        finally:
            sock.detach()

    def _drop_first(self, domain: Domain) -> None:
        if domain_key(domain.domid) in self._held.by_key:
            drop_first_message(self._socket(domain.domid))

    # ---- what is written ---------------------------------------------------------------------------------------------

    def send_descriptors(self, domid: DomId, sequence: int, references: Descriptors) -> None:
        """The descriptors that answer a hypercall, ahead of its reply; each broker sends them once."""
        if self._answered.get(domid) == sequence:
            return
        self._answered[domid] = sequence
        self.tell_with(domid, [DESCRIPTORS, sequence], references)

    def tell_with(self, domid: DomId, message: list[Any], references: Descriptors) -> None:
        """The same with descriptors that are held."""
        self.tell(domid, message, tuple(self._to_send(key, index) for key, index in references))

    def _to_send(self, key: str, index: int) -> int:
        """A descriptor to send; a medium whose device went before its backend heard of it is an empty file by now."""
        return self._held.by_key[key][index] if key in self._held.by_key else self._nothing

    def reply(self, domid: DomId, sequence: int, packed: bytes) -> None:
        """Answer a hypercall that came over the upcall socket; nothing if it has ended its caller."""
        if domain_key(domid) in self._held.by_key:
            fits = len(packed) <= REPLY_BYTES_MAX
            self.tell(domid, [REPLY, packed] if fits else [TOO_LARGE, sequence])

    def tell(self, domid: DomId, message: list[Any], descriptors: tuple[int, ...] = ()) -> None:
        """Say something unasked, now or when the socket takes it; whoever lets too much wait is killed."""
        outbox = self._outboxes.setdefault(domid, Outbox(self._held))
        if overflow := outbox.overflows(descriptors):
            self._log(f"{overflow} on its upcall socket, which it does not read: killed", domid=domid)
            self._kill(domid)
            return
        try:
            self._send_or_keep(outbox, domid, message, descriptors)
        except OSError as error:
            self._end(domid, error)
            return
        if self._poller.awaits_room(self._socket(domid)):
            self._go_on(domid)  # with its events too: once they are sent, nobody else rings for them
        else:
            self.flush(domid)

    def _send_or_keep(self, outbox: Outbox, domid: DomId, message: list[Any], descriptors: tuple[int, ...]) -> None:
        with suppress(BlockingIOError):
            if not len(outbox):
                self._send(self._socket(domid), message, descriptors)
                return
        outbox.add(message, descriptors)

    def flush(self, domid: DomId) -> None:
        """Send what waits, descriptors first, until the socket is full; then go on when it becomes writable."""
        sock = self._socket(domid)
        try:
            self._send_all(domid, sock)
        except BlockingIOError:
            self._poller.watch_writable(sock, lambda: self._go_on(domid))
            return
        except OSError as error:
            self._end(domid, error)
        self._poller.watch_writable(sock, None)

    def _go_on(self, domid: DomId) -> None:
        """It has read some of what it was rung for, and may have read all of it and sleep again."""
        self.flush(domid)
        self._ring(domid)

    def _end(self, domid: DomId, error: OSError) -> None:
        """It is dying, or has shut its socket, or what waits cannot be kept: it hears no more, so it goes."""
        self._log(f"its upcall socket cannot be written: {error.strerror}: killed", domid=domid)
        self._forget_waiting(domid)
        self._kill(domid)

    def _forget_waiting(self, domid: DomId) -> None:
        outbox = self._outboxes.pop(domid, None)
        if outbox is not None:
            outbox.clear()

    def _send_all(self, domid: DomId, sock: int) -> None:
        outbox, queue = self._outboxes.get(domid), self._queues.get(domid)
        if outbox is not None:
            outbox.send_all(lambda message, descriptors: self._send(sock, message, descriptors))
        reads = 0
        while queue is not None and (event := queue.take()) is not None:
            directory = queue.follows.get(event[2]) if reads < BRINGING_MAX else None
            reads += directory is not None  # whether it may be brought is known when all of it has been read
            brought = self._brought(domid, directory)
            try:
                self._send(sock, [EVENT, *event, *brought], ())
            except BlockingIOError:
                queue.put_back()
                raise

    def _brought(self, domid: DomId, directory: str | None) -> list[dict[str, bytes]]:
        """Read as the event is sent: what changes later has an event of its own behind it."""
        keys = None if directory is None else self._read(domid, directory)
        return [] if keys is None else [keys]

    def _socket(self, domid: DomId) -> int:
        return self._held.by_key[domain_key(domid)][UPCALL]

    def _send(self, descriptor: int, message: list[Any], descriptors: tuple[int, ...]) -> None:
        sock = socket.socket(fileno=descriptor)
        try:
            send_message(sock, message, descriptors)
        finally:
            sock.detach()
