"""One pseudo-terminal: where a console's output goes and its input comes from, whoever attaches to it, or nobody.

What a terminal is given the kernel passes on in threads of its own, on whatever CPU. So that a guest that prints
without end takes nothing of a CPU that other domains have, one that nobody reads is given something once a second.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
import tty
from collections.abc import Callable

from hvd.domains.console.readers import Readers
from hvd.transport.limits import CONSOLE_SCROLLBACK_BYTES_MAX

TIOCGPTN = 0x80045430
PATIENCE_S = 0.25
"""For a reader who has not come to it: he and we may wait for the same CPU."""
AGAIN_S = 1.0
"""Until a terminal that nobody has read is given something again. Whoever attaches meanwhile waits no longer for it."""


class Pty:
    """A raw terminal whose other end always exists: this side neither blocks nor hangs up.

    Its master is in its owner's epoll set: readable while it listens, writable while output waits for room.
    """

    def __init__(self, events: select.epoll, readers: Readers, withholds: Callable[[], None]) -> None:
        """`withholds` is called when what waits is to be handed over (`flush`) in AGAIN_S.

        OSError when the host has no terminal left.
        """
        self._events = events
        self._withholds = withholds
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        (number,) = struct.unpack("I", fcntl.ioctl(self.master, TIOCGPTN, bytes(4)))
        self.path = f"/dev/pts/{number}"  # os.ttyname takes a /proc, or a look at every terminal there is
        self._scrollback = bytearray()
        self.listening = False
        """Whether typing is an event."""
        self._interest = 0
        self._has_given = self._was_full = False
        """The terminal since it was emptied: whether it was given anything, and more than it took."""
        self._readers, self._number = readers, readers.follow(self.path)
        self._read_at = time.monotonic()
        """When somebody has read, as far as we have looked."""
        self._until = 0.0
        """Nothing is handed over before that, on the monotonic clock."""
        events.register(self.master, 0)

    def write(self, data: bytes) -> None:
        """Show; what the terminal does not take now waits, and of that the newest is kept."""
        self._scrollback += data
        if len(self._scrollback) > CONSOLE_SCROLLBACK_BYTES_MAX:
            if self._has_given:
                self._empty()
            excess = len(self._scrollback) - CONSOLE_SCROLLBACK_BYTES_MAX
            del self._scrollback[: self._scrollback.find(b"\n", excess - 1) + 1 or excess]
        self.flush()

    def flush(self) -> None:
        """Hand over what waits, as far as the terminal takes it."""
        try:
            while self._scrollback and time.monotonic() >= self._until:
                del self._scrollback[: os.write(self.master, self._scrollback)]
                self._has_given = True
        except BlockingIOError:
            self._was_full = True
        self._update()

    def _empty(self) -> None:
        """What lies in the terminal is older than what waits for it: it goes first, or a reader would see a gap."""
        termios.tcflush(self._slave, termios.TCIFLUSH)
        self._has_given = self._was_full = False
        now = time.monotonic()
        if self._readers.were_there(self._number):
            self._read_at = now
        if now >= self._read_at + PATIENCE_S:
            self._until = now + AGAIN_S
            self._withholds()

    def end(self) -> None:
        """Nothing more is printed: what waits is handed over now, and as the terminal takes it."""
        self._until = 0.0
        self.flush()

    def read(self, limit: int) -> bytes:
        """What was typed, at most `limit` (> 0) bytes; b"" if there is nothing."""
        try:
            return os.read(self.master, limit)
        except BlockingIOError:
            return b""

    def listen(self, *, on: bool) -> None:
        self.listening = on
        self._update()

    def close(self) -> None:
        self._readers.forget(self._number)
        self._events.unregister(self.master)
        os.close(self.master)
        os.close(self._slave)

    def _update(self) -> None:
        shows = bool(self._scrollback) and self._was_full
        interest = (select.EPOLLIN if self.listening else 0) | (select.EPOLLOUT if shows else 0)
        if interest != self._interest:
            self._events.modify(self.master, interest)
            self._interest = interest


class NoPty(Pty):
    """Stands where the host had no terminal left: nobody can attach, the log goes on."""

    def __init__(self) -> None:
        self.master, self.path, self.listening = -1, "", True

    def write(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def end(self) -> None: ...
    def listen(self, *, on: bool) -> None: ...
    def close(self) -> None: ...
