"""What waits to be told to each domain: watch events, numbered, kept until acknowledged, never more than a bound."""

from __future__ import annotations

from collections import deque
from operator import itemgetter

from hvd.transport.limits import EVENTS_PENDING_BYTES_MAX, EVENTS_PENDING_MAX
from hvd.transport.records import dataclass, field

FOLLOWS_MAX = 1024
"""Watches of one domain whose events bring what has changed: one for each device that it may have or serve."""
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
    path_bytes: int = 0
    """Of all of them; a token is its watch's."""
    last: int = 0
    descriptors_sent: int = 0
    descriptors_received: int = 0
    follows: dict[str, str] = field(default_factory=dict)
    """Token -> the directory whose nodes its events bring. Replaced, never changed."""

    def follow(self, token: str, directory: str) -> None:
        """From here on, unless there are as many as may be: then its events come alone."""
        if len(self.follows) < FOLLOWS_MAX:
            self.follows = {**self.follows, token: directory}

    def unfollow(self, token: str) -> None:
        """Nothing if it brought none."""
        if token in self.follows:
            self.follows = {other: directory for other, directory in self.follows.items() if other != token}

    def add(self, path: str, token: str) -> None:
        """Queue an event; at either bound all pending ones become a single overflow event."""
        self.last += 1
        if self.unsent.pop((path, token), None) is not None:
            self.path_bytes -= len(path)
        count = len(self.unsent) + len(self.unacknowledged)
        if count >= EVENTS_PENDING_MAX or self.path_bytes + len(path) > EVENTS_PENDING_BYTES_MAX:
            self.unsent.clear()
            self.unacknowledged.clear()
            self.path_bytes = 0
            path, token = OVERFLOW
        self.unsent[path, token] = self.last
        self.path_bytes += len(path)

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
            self.path_bytes -= len(self.unacknowledged.popleft()[1])
        for key in [key for key, n in self.unsent.items() if n <= number]:
            del self.unsent[key]
            self.path_bytes -= len(key[0])
        self.descriptors_received = max(self.descriptors_received, min(descriptors_received, self.descriptors_sent))

    def send_again(self) -> None:
        """A new broker cannot know what its predecessor's writes reached: everything unacknowledged is unsent.

        In the order of their numbers, because whoever has seen a number drops every lower one.
        """
        again = {(path, token): number for number, path, token in self.unacknowledged} | self.unsent
        self.unsent = dict(sorted(again.items(), key=itemgetter(1)))
        self.unacknowledged.clear()
        self.path_bytes = sum(len(path) for path, _ in self.unsent)
