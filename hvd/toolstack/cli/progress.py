"""Says what is being waited for, once that takes longer than a moment: a spinner on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

PATIENCE_S = 0.7
LINES_APART_S = 1.0


class Progress:
    """Use with `with`; call it with a text as often as there is something new. Goes to standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        """`quiet`: on a terminal alone, as when standard output is for a program."""
        self._over = quiet and not sys.stderr.isatty()
        self._text = ""
        self._told_at = 0.0
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE_S, self._show)
        self._timer.daemon = True
        self._status: Any = None
        self._showing = False

    def __call__(self, text: str) -> None:
        with self._lock:
            self._text = text
            if self._showing:
                self._update()

    def __enter__(self) -> Self:
        if not self._over:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._status is not None:
                self._status.stop()

    def _show(self) -> None:
        """In the timer's thread: it has taken long enough to load what draws."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status

            with self._lock:
                if not self._over:
                    self._status = Status(self._text, console=Console(stderr=True))
                    self._status.start()
        with self._lock:
            if not self._over:
                self._showing = True
                self._update()

    def _update(self) -> None:
        if self._status is not None:
            self._status.update(self._text)
        elif self._text and time.monotonic() - self._told_at >= LINES_APART_S:
            self._told_at = time.monotonic()
            sys.stderr.write(f"hvd: {self._text}\n")
            sys.stderr.flush()
