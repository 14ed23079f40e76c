"""Every peer by name, and how a bench opens those that this machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from hvd.toolstack.bench.figures import Figure, absent
from hvd.toolstack.bench.peers.iceoryx import Iceoryx
from hvd.toolstack.bench.peers.peer import Absent, CPeer, How, Peer
from hvd.toolstack.bench.peers.pipes import MultiprocessingPipe, OsPipe, UnixSocket
from hvd.toolstack.bench.peers.shared_memory import SharedMemorySemaphore
from hvd.toolstack.bench.peers.zeromq import ZeroMqPair
from hvd.transport._native import PingPong

C_SPIN, C_EVENTFD, C_FUTEX = "C spin ping-pong", "C eventfd ping-pong", "C futex ping-pong"
ZEROMQ, ICEORYX, DEALER_ROUTER = "pyzmq ipc", "iceoryx2 Python package", "pyzmq DEALER/ROUTER"
PYTHON: dict[str, Callable[[How, int, int], Peer]] = {
    "os.pipe": OsPipe,
    "Unix socket": UnixSocket,
    "multiprocessing.Pipe": MultiprocessingPipe,
    "shared_memory + semaphore": SharedMemorySemaphore,
    ZEROMQ: ZeroMqPair,
    ICEORYX: Iceoryx,
}
C_WOKEN = {C_EVENTFD: PingPong.EVENTFD, C_FUTEX: PingPong.FUTEX}


class Field:
    """The peers of one comparison, open until `close`; `figures` says which are absent."""

    def __init__(self, here: int, there: int) -> None:
        self._here, self._there = here, there
        self._stack = contextlib.ExitStack()
        self.peers: dict[str, Peer] = {}
        self.figures: list[Figure] = []

    def open(self, how: How, names: Iterable[str] = PYTHON) -> None:
        """The Python peers, and in C what waits in that way."""
        kinds = {C_SPIN: PingPong.SPIN} if how is How.POLLED else C_WOKEN
        for name, kind in kinds.items():
            self.peers[name] = CPeer(kind, self._here, self._there)
        for name in names:
            self.add(name, how, PYTHON[name])

    def add(self, name: str, how: How, kind: Callable[[How, int, int], Peer]) -> None:
        """One more."""
        try:
            peer = kind(how, self._here, self._there)
        except Absent as why:
            self.figures.append(absent(name, str(why)))
            return
        self._stack.callback(peer.close)
        self.peers[name] = peer

    def close(self) -> None:
        self._stack.close()
