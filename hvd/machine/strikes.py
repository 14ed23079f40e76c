"""Signals that are sent to broker and zygote as faults, and the end of their stops: whoever asked may be dead."""

from __future__ import annotations

import signal

from hvd.machine.children import Child


class Strikes:
    """Whom we have stopped, and until when."""

    def __init__(self) -> None:
        self._stopped: dict[int, tuple[float, Child]] = {}
        """By pid."""

    def strike(self, child: Child, number: int, for_s: float, now_s: float) -> None:
        """Send it. A stop is over after `for_s`, or when it is struck again."""
        child.signal(number)
        if number == signal.SIGSTOP:
            self._stopped[child.pid] = now_s + for_s, child

    def deadline(self) -> float | None:
        """When a stop is over."""
        return min((until for until, _ in self._stopped.values()), default=None)

    def expire(self, now_s: float) -> None:
        """Let those go on whose stop is over."""
        for pid, (until, child) in list(self._stopped.items()):
            if until <= now_s:
                del self._stopped[pid]
                child.signal(signal.SIGCONT)

    def forget(self, child: Child) -> None:
        """It is dead."""
        self._stopped.pop(child.pid, None)
