"""The domain's end of its console: bytes out, bytes in, and never stuck because nobody listens."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvd.transport._native import system_time_ns
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.limits import CONSOLE_BACKLOG_BYTES_MAX
from hvd.transport.protocols.console import IN_SIZE, ConsoleFront

if TYPE_CHECKING:
    from hvd.domains.runtime import Runtime

STALL_S = 1.0
"""How long a write waits for a back that takes nothing; then writes wait no more until it takes something."""
OTHER_THREAD_SLICE_S = 0.01
RAW_OUTPUT = 1
"""The pipe to the broker, which writes the domain's log when there is no console to do so."""
LOST = "\r\n[{} bytes lost]\r\n"
LOST_BYTES_MAX = len(LOST) + 20


class ConsoleFrontend:
    """There from the domain's first line to its last; the backs behind it come and go with domain 0's incarnations.

    Any thread may write; everything else is for the one that waits in the runtime.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._endpoint = runtime.console_endpoint
        self._port = runtime.console_port
        self._ring = ConsoleFront(runtime.console_extent.view)
        self._main = self._waiting = threading.get_ident()
        """The threads that signals' handlers run in, and that waits in the runtime: the same one in most guests."""
        self._moved = threading.Condition()
        """Held while the backlog is worked on; told when the back has taken something."""
        self._main_writes = False
        self._backlog = bytearray()
        self._accepted = 0
        """Bytes ever written; those of them not in the backlog are in the ring, or lost."""
        self._lost = 0
        self._stalled = False
        self._closed = False
        """The ring is not for us any more: what is printed goes to the log."""
        self.relieve: Callable[[], None] | None = None
        """Set in domain 0, where no other process empties the ring: does the back's work at once."""
        runtime.bind(self._port, self._endpoint, self._on_event)
        runtime.waiter.attach_console(self._port, self._ring)

    # ---- out ---------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Print. Waits for room as long as the back makes some, else a second; past the bound the oldest is lost."""
        with self._moved:
            if not self._closed:
                self._take_in(data)
                if threading.get_ident() != self._main:
                    self._flush()
                elif not self._main_writes:  # else a signal's handler prints in the middle of a write, which goes on
                    self._main_writes = True
                    try:
                        self._flush()
                    finally:
                        self._main_writes = False
                return
        write_raw(data)

    def put(self, data: bytes) -> int:
        """Print without waiting; how much waits for the back then. Past the bound the oldest is lost, as in `write`."""
        with self._moved:
            if not self._closed:
                self._take_in(data)
                self._push()
                self._bound_backlog()
                return len(self._backlog)
        write_raw(data)
        return 0

    def _take_in(self, data: bytes) -> None:
        self._backlog += data
        self._accepted += len(data)

    @property
    def waiting(self) -> int:
        """Bytes that were printed and have no room in the ring yet."""
        return len(self._backlog)

    def drain(self, timeout_s: float) -> bool:
        """Wait until the back has taken everything; False when it has not in time."""
        until = _now_s() + timeout_s
        with self._moved:
            while (waiting := self._waiting_bytes()) and (left := until - _now_s()) > 0:
                self._wait_for_room(left)
                if self.relieve is not None and self._waiting_bytes() == waiting:
                    break
            return not self._waiting_bytes()

    def undelivered(self) -> bytes:
        """What was printed and the back has not taken."""
        with contextlib.suppress(PeerFault):
            return self._ring.undelivered() + self._backlog
        return bytes(self._backlog)

    def write_down(self) -> None:
        """Have the log without the back what it has not taken, and all that is printed from now on.

        The back may show what it still finds in the ring, and does not write it down once more. Looked at first, and
        said then: what the back takes between the two stands in the log twice, and nothing in none.
        """
        if self._closed:
            return  # a child of the domain's, whose ring this is not; or nobody may say what is in the ring
        with self._moved:
            self._closed = True
            left = bytes(self._backlog)
            self._backlog.clear()
            with contextlib.suppress(PeerFault):
                left = self._ring.undelivered() + left
                self._ring.write_down()
        write_raw(left)

    def _flush(self) -> None:
        target = self._accepted
        self._push()
        until = _now_s() + STALL_S
        while not self._stalled and self._accepted - len(self._backlog) < target:
            self._wait_for_room(until - _now_s())
            if self._push():
                until = _now_s() + STALL_S
            elif self.relieve is not None or _now_s() >= until:
                self._stalled = True
        self._bound_backlog()

    def _push(self) -> bool:
        """Move into the ring what fits; whether anything did."""
        moved = 0
        try:
            if self._lost and self._ring.free >= LOST_BYTES_MAX:
                self._backlog[:0] = LOST.format(self._lost).encode()
                self._lost = 0
            while self._backlog and (count := self._ring.write(self._backlog)):
                del self._backlog[:count]
                moved += count
        except PeerFault as fault:
            self._give_up(fault)
            return True
        if moved:
            self._stalled = False
            self._endpoint.notify()
        return bool(moved)

    def _wait_for_room(self, timeout_s: float) -> None:
        if self.relieve is not None:
            self.relieve()
        elif threading.get_ident() == self._waiting:
            self._wait_on_channel(timeout_s)
        else:
            # Whoever waits in the runtime tells us; while he is busy elsewhere we look again by ourselves.
            self._moved.wait(max(0.0, min(timeout_s, OTHER_THREAD_SLICE_S)))

    def _wait_on_channel(self, timeout_s: float) -> None:
        """On this channel alone: no other driver's handler is to run inside somebody's print."""
        waiter = self._runtime.waiter
        try:
            waiter.remove(self._port)
            self._endpoint.wait(max(0, int(timeout_s * 1e9)))
        except LocalError:  # another thread waits in the runtime, for the first time
            self._moved.wait(OTHER_THREAD_SLICE_S)
        finally:  # a signal's handler may raise anywhere above: whatever was done, the port is bound afterwards
            with contextlib.suppress(LocalError):
                waiter.add(self._port, self._endpoint)
                waiter.attach_console(self._port, self._ring)

    def _bound_backlog(self) -> None:
        """Drop the oldest beyond the bound, to the end of a line if there is one."""
        excess = len(self._backlog) - CONSOLE_BACKLOG_BYTES_MAX
        if excess > 0:
            lost = self._backlog.find(b"\n", excess - 1) + 1 or excess
            del self._backlog[:lost]
            self._lost += lost

    def _waiting_bytes(self) -> int:
        """Printed and not taken, after moving what can be moved."""
        self._push()
        try:
            return len(self._backlog) + self._ring.in_flight
        except PeerFault as fault:
            self._give_up(fault)
            return 0

    def _give_up(self, fault: PeerFault) -> None:
        """The back broke the ring."""
        if not self._closed:
            self._closed = True
            write_raw(f"{fault}; what is printed from here on is in the log only\n".encode())
        write_raw(self._backlog)
        self._backlog.clear()

    def disown(self) -> None:
        """In a child of the domain's process: the ring is its parent's alone, and who held the lock is not with us."""
        self._closed = True
        self._moved = threading.Condition()
        self._backlog.clear()

    def _on_event(self) -> None:
        """The back has taken something, or something was typed."""
        self._waiting = threading.get_ident()
        with self._moved:
            self._push()
            self._check()
            self._moved.notify_all()

    def _check(self) -> None:
        """Whoever neither prints nor reads finds a broken ring, too."""
        try:
            self._ring.check()
        except PeerFault as fault:
            self._give_up(fault)

    # ---- in ----------------------------------------------------------------------------------------------------------

    def read(self, timeout_s: float | None = None) -> bytes:
        """What was typed; waits for it in the runtime, so that the domain's other drivers go on meanwhile.

        b"" when nothing was typed in time, or nothing ever will be.
        """
        until = None if timeout_s is None else _now_s() + timeout_s
        while not self._closed:
            data = self._take()
            left = None if until is None else until - _now_s()
            if data or (left is not None and left <= 0):
                return data
            self._runtime.wait(left)
        return b""

    def _take(self) -> bytes:
        try:
            data = self._ring.read(IN_SIZE)
        except PeerFault as fault:
            self._give_up(fault)
            return b""
        if data:
            self._endpoint.notify()
        return data


def write_raw(data: bytes | bytearray) -> None:
    """Write to the pipe that the broker appends to the domain's log, with the ends of lines that a file has."""
    left = memoryview(data.replace(b"\r\n", b"\n"))
    while left:
        left = left[os.write(RAW_OUTPUT, left) :]


def _now_s() -> float:
    """Of the domain's own time: nobody who was paused has waited."""
    return system_time_ns() / 1e9
