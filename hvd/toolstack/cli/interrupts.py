"""The signals that ask a command to end, and where it hears of them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
"""The exit status of a command that was, and has left nothing."""


class Ended(BaseException):
    """A signal asks this program to end."""


Handler = Callable[[int, FrameType | None], None]


def _heard_by(handler: Handler) -> dict[int, Any]:
    """What heard of those signals before. Where nohup has us ignore SIGHUP, we still do.

    Not SIGINT, which a script's shell has all ignore that it starts with `&`: whoever sends it means it.
    """
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    heeded = [number for number in ENDING_SIGNALS if number not in ignored]
    return {number: signal.signal(number, handler) for number in heeded}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Ended in the block, each time."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended

    before = _heard_by(end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class HeldSignals:
    """In its block they wait until it asks, so that nothing is left half done: whoever cleans up is not interrupted.

    The first, when it comes as nobody asks any more, is heard behind the block, by what heard of them before.
    """

    def __init__(self) -> None:
        self._came = self._heard = False
        self._known = False
        """Whether somebody has been told of one, or wants to know of none."""
        self._last: int | None = None

    def __enter__(self) -> Self:
        self._before = _heard_by(self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if kind is SystemExit:
            self.ignore()  # Python takes a while to end: its status is said already
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._last is not None and not self._known and raised[0] is None:
            signal.raise_signal(self._last)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._came, self._last = True, number
        if self._heard:
            self._heard, self._known = False, True
            raise Ended

    def ignore(self) -> None:
        """What comes from now on comes too late: this program is done, and ends."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before, self._known = {}, True

    @property
    def came(self) -> bool:
        """Whether one has."""
        if not self._came:
            return False
        self._known = True
        return True

    def check(self) -> None:
        """Ended if one has come."""
        if self.came:
            raise Ended

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """In this block the first raises Ended at once, and so does one that has come before."""
        self._heard = True
        try:
            self.check()
            yield
        finally:
            self._heard = False
