"""A peer: one way between two processes, its answering end on a CPU of its own, its asking end in this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from enum import StrEnum
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from hvd.toolstack.bench.run import pinned
from hvd.transport._native import PingPong, ping_pong
from hvd.transport.errors import HvdError
from hvd.transport.histogram import Histogram
from hvd.transport.process import die_with_parent

MESSAGE = bytes(range(64))
ANSWERER_DEADLINE_S = 10.0
SPAWN = multiprocessing.get_context("spawn")
"""A fresh interpreter: this one has threads, with which no fork gets along."""


class How(StrEnum):
    """How both ends wait for a message."""

    POLLED = "polled"
    WOKEN = "woken"


class Absent(Exception):
    """This machine lacks the peer; the text says what."""


class Peer(ABC):
    """Round trips of 64 bytes (of one word where that is all there is)."""

    @abstractmethod
    def times(self, for_ns: int, think_ns: int) -> Histogram:
        """Closed loop for so long; the caller sleeps `think_ns` before each."""

    @abstractmethod
    def close(self) -> None:
        """End the answering end."""


class CPeer(Peer):
    """Bare C on both ends."""

    def __init__(self, kind: PingPong, here: int, there: int) -> None:
        self._kind, self._here, self._there = kind, here, there

    def times(self, for_ns: int, think_ns: int) -> Histogram:
        times = Histogram()
        with pinned(self._here):
            ping_pong(self._kind, times, for_ns, think_ns, self._there)
        return times

    def close(self) -> None:
        """The answering end ended with each turn."""


class PythonPeer(Peer):
    """Python on both ends. A subclass's `answer` runs in the answering process, until this one ends it."""

    def __init__(self, how: How, here: int, there: int) -> None:
        """Absent when the machine lacks what it needs."""
        self._how, self._here = how, here
        ours, theirs = self.open(how)
        self._call = self.caller(how, ours)
        told, tells = SPAWN.Pipe(duplex=False)
        self._process: SpawnProcess = SPAWN.Process(
            target=_answer, args=(type(self).answerer, how, theirs, (there, os.getpid(), tells)), daemon=True
        )
        self._process.start()
        tells.close()
        try:
            if not told.poll(ANSWERER_DEADLINE_S) or told.recv() != "ready":
                raise Absent("its answering process did not start")
        except EOFError:
            raise Absent("its answering process ended at once") from None
        finally:
            told.close()
        self._rest(signal.SIGSTOP)

    @abstractmethod
    def open(self, how: How) -> tuple[Any, Any]:
        """What the asking end needs, and what is sent to the answering process."""

    @abstractmethod
    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        """A function that makes one round trip."""

    @classmethod
    @abstractmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        """In the answering process: a function that takes one message and sends it back."""

    def times(self, for_ns: int, think_ns: int) -> Histogram:
        times = Histogram()
        self._rest(signal.SIGCONT)
        with pinned(self._here), _deadline(for_ns / 1e9 + ANSWERER_DEADLINE_S):
            self._call()
            times.time_calls(self._call, for_ns, think_ns)
        self._rest(signal.SIGSTOP)
        return times

    def _rest(self, number: signal.Signals) -> None:
        """Between two turns a polling process is stopped: it would take its CPU from the next contender."""
        if self._how is How.POLLED and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()


def _answer(
    make: Callable[[How, Any], Callable[[], object]], how: How, theirs: Any, start: tuple[int, int, Any]
) -> None:
    cpu, parent, tells = start
    die_with_parent(parent)
    answer = make(how, theirs)
    os.sched_setaffinity(0, {cpu})
    tells.send("ready")
    tells.close()
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        while True:
            answer()


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """An answering end that has died leaves its caller waiting in a library that does not know of it."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise HvdError(f"a peer has not answered within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def retried(read: Callable[[], Any], nothing: type[Exception]) -> Callable[[], Any]:
    """Polling with a call that raises when there is nothing."""

    def poll() -> Any:
        while True:
            try:
                return read()
            except nothing:
                continue

    return poll
