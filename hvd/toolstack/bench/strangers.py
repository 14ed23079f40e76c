"""A process that is no domain and takes what it can get: what the machine, not hvd, costs whoever runs beside it."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from hvd.toolstack.bench.peers.peer import SPAWN
from hvd.transport._native import Walk
from hvd.transport.errors import HvdError
from hvd.transport.process import die_with_parent

DEADLINE_S = 10.0
WALK_LINES = 1 << 20
"""64 MiB: more than any cache."""
MAPPED = 1 << 24
MESSAGE = b"x" * 2000
REST_S = 50e-6


def walks() -> None:
    """Through more memory than any cache holds."""
    walk = Walk(WALK_LINES)
    while True:
        walk.walk(WALK_LINES)


def maps() -> None:
    """Shared pages: makes them, touches each, and lets them go."""
    while True:
        fd = os.memfd_create("hvd-bench")
        os.ftruncate(fd, MAPPED)
        with mmap.mmap(fd, MAPPED) as pages:
            os.close(fd)
            for at in range(0, MAPPED, mmap.PAGESIZE):
                pages[at] = 1


def talks() -> None:
    """To another process on the same CPU, one message at a time."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        die_with_parent(parent)
        while True:
            theirs.send(theirs.recv(len(MESSAGE)))
    while True:
        ours.send(MESSAGE)
        ours.recv(len(MESSAGE))


def naps() -> None:
    """As short as it can: its CPU is idle and awake again ten thousand times a second."""
    while True:
        time.sleep(REST_S)


def rests() -> None:
    """Nothing at all: what is found beside it is what the measuring itself finds where there is nothing to find."""
    while True:
        signal.pause()


WAYS: dict[str, Callable[[], None]] = {way.__name__: way for way in (rests, walks, maps, talks, naps)}


class Stranger:
    """One such process on one CPU, from `with` to its end; it does nothing until it is told to go on."""

    def __init__(self, way: str, cpu: int) -> None:
        """`way`: a name in WAYS."""
        told, tells = SPAWN.Pipe(duplex=False)
        self._process = SPAWN.Process(target=_work, args=(way, cpu, os.getpid(), tells), daemon=True)
        self._process.start()
        tells.close()
        with told:
            if not told.poll(DEADLINE_S):
                self.close()
                raise HvdError(f"a process beside which to measure ({way}) did not start within {DEADLINE_S:g} s")
        self.hold()

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def hold(self) -> None:
        """It is off its CPU when this returns."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOWAIT)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()

    def __enter__(self) -> Stranger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _pid(self) -> int:
        if self._process.pid is None:
            raise HvdError("a process beside which to measure is not running")
        return self._process.pid

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._pid, number)


def _work(way: str, cpu: int, parent: int, tells: Any) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.sched_setaffinity(0, {cpu})
    tells.send("ready")
    tells.close()
    try:
        WAYS[way]()
    except OSError as error:
        sys.exit(f"a process beside which to measure ({way}): {error}")
