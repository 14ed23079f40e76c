"""What waits to be told to each domain: watch events, numbered, kept until acknowledged, never more than a bound."""

from __future__ import annotations

from collections import deque
from dataclasses import field
from operator import itemgetter

from hvd.transport.limits import EVENTS_PENDING_MAX
from hvd.transport.records import dataclass

OVERFLOW = ("", "")
"""Stands for "you missed some": the domain reads everything that it watches again."""


@dataclass(slots=True)
class UpcallQueue:
    """One incarnation's events.

    Numbers count every event that ever fired, so that a replayed journal numbers them alike; an event that repeats one
    not sent yet takes its place and leaves a gap. A domain ignores numbers that it has seen.
    """

    unsent: dict[tuple[str, str], int] = field(default_factory=dict)
    unacknowledged: deque[tuple[int, str, str]] = field(default_factory=deque)
    last: int = 0
    descriptors_sent: int = 0
    descriptors_received: int = 0

    def add(self, path: str, token: str) -> None:
        """Queue an event; at the bound all pending ones become a single overflow event."""
        self.last += 1
        self.unsent.pop((path, token), None)
        if len(self.unsent) + len(self.unacknowledged) >= EVENTS_PENDING_MAX:
            self.unsent.clear()
            self.unacknowledged.clear()
            path, token = OVERFLOW
        self.unsent[path, token] = self.last

    def take(self) -> tuple[int, str, str] | None:
        """The next event to send, now unacknowledged; None when all are sent."""
        if not self.unsent:
            return None
        (path, token), number = next(iter(self.unsent.items()))
        del self.unsent[path, token]
        self.unacknowledged.append((number, path, token))
        return number, path, token

    def put_back(self) -> None:
        """The socket did not take the event taken last."""
        number, path, token = self.unacknowledged.pop()
        self.unsent = {(path, token): number, **self.unsent}

    def acknowledge(self, number: int, descriptors_received: int) -> None:
        """The domain has seen everything up to `number`, and so many descriptors."""
        while self.unacknowledged and self.unacknowledged[0][0] <= number:
            self.unacknowledged.popleft()
        for key in [key for key, n in self.unsent.items() if n <= number]:
            del self.unsent[key]
        self.descriptors_received = max(self.descriptors_received, min(descriptors_received, self.descriptors_sent))

    def send_again(self) -> None:
        """A new broker cannot know what its predecessor's writes reached: everything unacknowledged is unsent.

        In the order of their numbers, because whoever has seen a number drops every lower one.
        """
        again = {(path, token): number for number, path, token in self.unacknowledged} | self.unsent
        self.unsent = dict(sorted(again.items(), key=itemgetter(1)))
        self.unacknowledged.clear()
