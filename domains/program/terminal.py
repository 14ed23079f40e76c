"""A program's terminal on its domain's console: bytes between a pty's master side and the console's ring.

The pty does what a terminal does: it edits and echoes lines, and turns Ctrl-C into a signal. Nothing is changed on the
way. A PV console has no size, and so the terminal has none until the program gives it one.
"""

from __future__ import annotations

import os
import select

from hvd.domains.console.frontend import STALL_S
from hvd.domains.guest import Guest

CHUNK_BYTES = 4096
LAST_WORDS_BYTES_MAX = 1 << 20
"""More than a terminal holds: what is read behind that is printed by those who have survived the program."""


class Terminal:
    """`pump` is called whenever the domain has waited."""

    def __init__(self, guest: Guest, master: int) -> None:
        """Of a terminal whose slave side is open elsewhere too."""
        self._console = guest.console
        self._now_ns = guest.runtime.system_time_ns
        self._master = master
        os.set_blocking(master, False)
        self._typed = b""
        """What the terminal did not take yet."""
        self._held_since_ns: int | None = None
        """When the console stopped taking output; the next is not read before it does, or a second is over."""
        self._stalled = False
        self._interest = select.EPOLLIN
        self._events = select.epoll()
        self._events.register(master, self._interest)
        guest.runtime.watch_fd(self._events.fileno(), self._on_event)

    def patience_s(self) -> float | None:
        """How long a wait may last before `pump` has something to do; None: until something happens."""
        if self._held_since_ns is None:
            return None
        return max(0.0, STALL_S - (self._now_ns() - self._held_since_ns) / 1e9)

    def pump(self) -> None:
        """What was typed goes to the program; what it prints is read again when there is room for it."""
        self._give_input()
        if not self._console.waiting:
            self._held_since_ns, self._stalled = None, False
        elif self.patience_s() == 0:
            self._held_since_ns, self._stalled = None, True  # nobody takes it: the oldest is lost, as on any console
        self._listen()

    def finish(self) -> None:
        """The program has ended: print what it had printed."""
        left = LAST_WORDS_BYTES_MAX
        while left > 0 and (taken := self._take_output()):
            left -= taken

    def _on_event(self) -> None:
        for _, ready in self._events.poll(0):
            if ready & select.EPOLLIN:
                self._take_output()
            if ready & select.EPOLLOUT:
                self._give_input()
        self._listen()

    def _take_output(self) -> int:
        """A part of it; how many bytes, 0 when there are none."""
        try:
            printed = os.read(self._master, CHUNK_BYTES)
        except OSError:  # nothing there, or nobody left who could print
            return 0
        if self._console.put(printed) and not self._stalled and self._held_since_ns is None:
            self._held_since_ns = self._now_ns()
        return len(printed)

    def _give_input(self) -> None:
        while typed := self._typed or self._console.read(0):
            try:
                self._typed = typed[os.write(self._master, typed) :]
            except OSError:  # it is full: the ring keeps the rest
                self._typed = typed
                return

    def _listen(self) -> None:
        interest = 0 if self._held_since_ns is not None else select.EPOLLIN
        if self._typed:
            interest |= select.EPOLLOUT
        if interest != self._interest:
            self._interest = interest
            self._events.modify(self._master, interest)
