"""What a block frontend asked for and was not answered: it outlives every backend, so each request completes once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hvd.domains.block.pool import Run


@dataclass(slots=True)
class Request:
    """One request slot's worth: its bytes as they go into the ring, and the pages its data lies in."""

    id: int
    slot: bytes
    operation: int
    sectors: int
    data: Run | None
    deadline_ns: int
    table: Run | None = None
    """The page of an indirect request's segments."""
    sent: bool = False
    """It is in the ring, or was: only then can it be answered."""
    abandoned: bool = False
    """It timed out: its guest has its error, but a backend may still use its pages."""


class Shadow:
    """Open requests by id, and those of them that are not in the ring."""

    def __init__(self) -> None:
        self.open: dict[int, Request] = {}
        self._unsent: deque[Request] = deque()
        self._last_id = 0

    def next_id(self) -> int:
        """An id that no request has had."""
        self._last_id += 1
        return self._last_id

    def add(self, request: Request) -> None:
        self.open[request.id] = request
        self._unsent.append(request)

    def unsent(self) -> Request | None:
        """The next request to put into the ring."""
        if not self._unsent:
            return None
        request = self._unsent.popleft()
        request.sent = True
        return request

    def answered(self, untrusted_id: int) -> Request | None:
        """The request an answer belongs to, now closed; None for a late, second or invented answer."""
        request = self.open.get(untrusted_id)
        if request is None or not request.sent:
            return None
        del self.open[untrusted_id]
        return request

    def backend_died(self) -> list[Request]:
        """Everything open is to be issued again in order; what was abandoned is closed: nobody uses its pages now."""
        abandoned = [request for request in self.open.values() if request.abandoned]
        for request in abandoned:
            del self.open[request.id]
        self._unsent = deque(sorted(self.open.values(), key=lambda request: request.id))
        for request in self._unsent:
            request.sent = False
        return abandoned

    def expired(self, now_ns: int) -> list[Request]:
        """Requests past their deadline, each reported once. Unsent ones are closed, the others abandoned."""
        late = [request for request in self.open.values() if request.deadline_ns <= now_ns and not request.abandoned]
        if not late:
            return late
        for request in late:
            if request.sent:
                request.abandoned = True
            else:
                del self.open[request.id]
        self._unsent = deque(request for request in self._unsent if request.id in self.open)
        return late
