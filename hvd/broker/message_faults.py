"""What a fault does to the hypercalls of one domain between its endpoint and the tables: lost, twice, late, too large.

Requests that are lost are sent again by their caller, and replies by the sessions' memory: nothing is carried out
twice.
Which message is hit is decided by the seed and by how many came before it in this broker's life.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from random import Random

from hvd.broker.faults import Fault
from hvd.transport.codec import BadMessage, unpack_request
from hvd.transport.faults import FaultKind
from hvd.transport.limits import MESSAGE_BYTES_MAX

Request = tuple[bytes, bytes]
"""Client and untrusted bytes."""
HELD_MAX = 64
"""Requests that wait to be late; the next one is in time. What waits when the fault is over, its caller sends again."""


class MessageFault:
    """One fault of the family HYPERCALLS under way; `counts` are by name."""

    def __init__(self, fault: Fault) -> None:
        self.kind = fault.kind
        self.counts: Counter[str] = Counter()
        self._rate = fault.rate
        self._late_ns = fault.amount * 1000
        self._random = Random(fault.seed)
        self._held: deque[tuple[int, Request]] = deque()
        self._sequence = self._answered = 0

    def arrived(self, request: Request, now_ns: int) -> list[Request]:
        """What is to be carried out in the place of this request, in order."""
        self._note_sequence(request[1])
        behind = [held for _, held in self._held] if self.kind is FaultKind.REORDER_HYPERCALLS else []
        if behind:
            self._held.clear()
            return [request, *behind]
        return self._hit(request, now_ns) if self._is_hit() else [request]

    def _hit(self, request: Request, now_ns: int) -> list[Request]:
        match self.kind:
            case FaultKind.DROP_HYPERCALLS:
                self.counts["requests dropped"] += 1
                return []
            case FaultKind.DUPLICATE_HYPERCALLS:
                self.counts["duplicated"] += 1
                return [request, request]
            case FaultKind.OVERSIZE_HYPERCALLS:
                self.counts["oversized"] += 1
                return [(request[0], bytes(MESSAGE_BYTES_MAX + 1)), request]
            case FaultKind.REORDER_HYPERCALLS | FaultKind.DELAY_HYPERCALLS if len(self._held) < HELD_MAX:
                late = self.kind is FaultKind.DELAY_HYPERCALLS
                self.counts["delayed" if late else "reordered"] += 1
                self._held.append((now_ns + self._late_ns, request))
                return []
        return [request]

    def loses_reply(self) -> bool:
        """Whether the reply that is about to be sent is lost."""
        lost = self.kind is FaultKind.DROP_HYPERCALLS and self._is_hit()
        self.counts["replies dropped"] += lost
        return lost

    def due_ns(self) -> int | None:
        """When the next late request is to arrive."""
        return self._held[0][0] if self._held and self.kind is FaultKind.DELAY_HYPERCALLS else None

    def take_due(self, now_ns: int) -> list[Request]:
        """Late requests whose time it is."""
        due = []
        while (at := self.due_ns()) is not None and at <= now_ns:
            due.append(self._held.popleft()[1])
        self.counts["late"] += len(due)
        return due

    def answered(self, sequence: int, code: int) -> None:
        """What came of a request: one that is answered under a number that was answered before is a repeat."""
        self.counts["refused"] += code == errno.EBADMSG
        self.counts["repeats"] += 0 < sequence <= self._answered
        self._answered = max(self._answered, sequence)

    def _is_hit(self) -> bool:
        return self._random.randrange(1000) < self._rate

    def _note_sequence(self, untrusted_body: bytes) -> None:
        """A number that came before is what its caller does when it has heard nothing: it witnesses the loss."""
        try:
            sequence = unpack_request(untrusted_body)[0]
        except BadMessage:
            return
        self.counts["sent again"] += sequence <= self._sequence
        self._sequence = max(self._sequence, sequence)
