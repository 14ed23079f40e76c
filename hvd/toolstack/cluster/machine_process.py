"""Starts a machine as a process of its own; holds on to it by a pidfd, a pipe it reports on, and one it follows."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from hvd.toolstack.cluster.errors import BadInput, BadRunDir, NoUplink, StartFailed
from hvd.toolstack.cluster.run_dirs import VARIABLE
from hvd.transport.run_dir import LET_GO, NO_UPLINK, UNUSABLE, Order

UP = "up"
REPORT_BYTES_MAX = 65_536
END_DEADLINE_S = 15.0
ARENA_MAX = "MALLOC_ARENA_MAX"
"""By which a user may have malloc keep what libzmq keeps among all else: no hoard is seen there (broker/hoards.py)."""


def _environment() -> dict[str, str]:
    """Ours, without what bounds the arenas of malloc."""
    return {name: value for name, value in os.environ.items() if name != ARENA_MAX}


class MachineProcess:
    """A machine that waits for its order or carries it out. It is our child, and ends with us unless it is let go."""

    def __init__(self, pid: int, orders: int, reports: int) -> None:
        """`orders` and `reports` are our ends of its pipes; they are closed by `close`."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._orders = orders
        self._reports = reports
        self._report = ""
        self.ordered = False

    @classmethod
    def spawn(cls) -> MachineProcess:
        """A fresh interpreter that runs `python -m hvd machine`."""
        orders_read, orders_write = os.pipe()
        reports_read, reports_write = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "hvd", "machine"],
                _environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, orders_read, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, reports_write, 3),
                ],
                setsid=True,
            )
        finally:
            os.close(orders_read)
            os.close(reports_write)
        return cls(pid, orders_write, reports_read)

    def order(self, order: Order) -> None:
        """Give it its order, once; StartFailed or a BadInput carries what the machine said if it is gone."""
        self.ordered = True
        try:
            _write_all(self._orders, order.packed())
        except BrokenPipeError:
            raise self._end() from None

    def let_go(self) -> None:
        """It goes on when we end; StartFailed: it has ended itself."""
        try:
            _write_all(self._orders, LET_GO)
        except BrokenPipeError:
            raise self._end() from None

    def wait_up(self, deadline_s: float) -> None:
        """Until the broker is up; StartFailed or a BadInput carries what the machine said."""
        until = time.monotonic() + deadline_s
        while UP not in self._report.splitlines():
            if not self._wait_report(until):
                late = time.monotonic() >= until
                raise StartFailed(f"the broker was not up within {deadline_s:g} s") if late else self._end()

    def _end(self) -> StartFailed | BadInput:
        words = self.last_words() or "the machine ended without a word"
        if words.startswith(UNUSABLE):
            return BadRunDir(f"{words.removeprefix(UNUSABLE)}; choose another with {VARIABLE}")
        if words.startswith(NO_UPLINK):
            return NoUplink(words.removeprefix(NO_UPLINK))
        return StartFailed(words)

    def last_words(self) -> str:
        """What the machine reported beside being up, for people."""
        self._wait_report(time.monotonic())
        words = [line for line in self._report.splitlines() if line != UP]
        return "; ".join(words)

    def discard(self) -> None:
        """End it, and everything under it, whatever it is doing, and close it; nothing if it is closed."""
        if self.pidfd < 0:
            return
        self._signal(signal.SIGTERM if self.ordered else signal.SIGKILL)
        if not self.wait(END_DEADLINE_S):
            self._signal(signal.SIGKILL)
            self.wait(END_DEADLINE_S)
        self.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, deadline_s: float) -> bool:
        """Whether it has ended before the deadline; its status is collected."""
        if not select.select([self.pidfd], [], [], deadline_s)[0]:
            return False
        with contextlib.suppress(ChildProcessError):  # the program we live in may reap children by itself
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        return True

    def close(self) -> None:
        """Nothing more of it. It powers off, if it has not been let go."""
        for descriptor in (self._orders, self._reports, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self._orders = self._reports = self.pidfd = -1

    def _wait_report(self, until: float) -> bool:
        """Take in what it has to say, waiting until then; False at its end or the deadline."""
        if self._reports < 0 or len(self._report) > REPORT_BYTES_MAX:
            return False
        if not select.select([self._reports], [], [], max(0.0, until - time.monotonic()))[0]:
            return False
        data = os.read(self._reports, 4096)
        self._report += data.decode(errors="replace")
        return bool(data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
