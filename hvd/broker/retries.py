"""When what the host has refused is tried again: at once for a while, or later and twice as long each time."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

import zmq

R = TypeVar("R")
PATIENCE_S, BETWEEN_S = 2.0, 0.01
"""Shorter than a machine's with a broker that does not beat."""


def make_room_for(make: Callable[[], R]) -> R:
    """What `make` makes, tried again for a while where there is no room: what a dead broker had may be going yet.

    OSError, or zmq's own error, when there is none then either; and of anything else at once.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return make()
        except (OSError, zmq.ZMQError) as error:
            if error.errno != errno.ENOSPC or time.monotonic() > until:
                raise
        time.sleep(BETWEEN_S)


class Retry:
    """Of one thing. Times are host time in nanoseconds."""

    def __init__(self, least_ns: int, most_ns: int) -> None:
        self._least_ns, self._most_ns = least_ns, most_ns
        self._wait_ns = 0
        self.at_ns = 0
        """From when on it may be tried."""

    def is_due(self, now_ns: int) -> bool:
        """Whether it may be tried now; whatever has not been refused may."""
        return now_ns >= self.at_ns

    def refused(self, now_ns: int) -> int:
        """It has been, once more; after how long it may be tried again."""
        self._wait_ns = min(2 * self._wait_ns, self._most_ns) if self._wait_ns else self._least_ns
        self.at_ns = now_ns + self._wait_ns
        return self._wait_ns

    def granted(self) -> None:
        """It has not been this time: the next refusal is a first one."""
        self._wait_ns = self.at_ns = 0
