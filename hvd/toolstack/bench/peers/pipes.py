"""Peers that the kernel carries: os.pipe, a Unix socket, multiprocessing.Pipe."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any

from hvd.toolstack.bench.peers.peer import MESSAGE, SPAWN, How, PythonPeer, retried

SIZE = len(MESSAGE)


class OsPipe(PythonPeer):
    """Two pipes, os.read and os.write."""

    def open(self, how: How) -> tuple[Any, Any]:
        (there_read, here_write), (here_read, there_write) = os.pipe(), os.pipe()
        self._descriptors = [there_read, here_write, here_read, there_write]
        return (here_read, here_write), (DupFd(there_read), DupFd(there_write))

    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        receive, write_end = _reader(how, ours[0]), ours[1]

        def call() -> None:
            os.write(write_end, MESSAGE)
            receive()

        return call

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        receive, write_end = _reader(how, theirs[0].detach()), theirs[1].detach()
        return lambda: os.write(write_end, receive())

    def close(self) -> None:
        super().close()
        for descriptor in self._descriptors:
            os.close(descriptor)


def _reader(how: How, descriptor: int) -> Callable[[], bytes]:
    if how is How.WOKEN:
        return lambda: os.read(descriptor, SIZE)
    os.set_blocking(descriptor, False)
    return retried(lambda: os.read(descriptor, SIZE), BlockingIOError)


class UnixSocket(PythonPeer):
    """A socketpair of sequenced packets."""

    def open(self, how: How) -> tuple[Any, Any]:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return self._ours, self._theirs

    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        receive, send = _receiver(how, ours), ours.send

        def call() -> None:
            send(MESSAGE)
            receive()

        return call

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        receive, send = _receiver(how, theirs), theirs.send
        return lambda: send(receive())

    def close(self) -> None:
        super().close()
        self._ours.close()
        self._theirs.close()


def _receiver(how: How, end: socket.socket) -> Callable[[], bytes]:
    end.setblocking(how is How.WOKEN)
    return (lambda: end.recv(SIZE)) if how is How.WOKEN else retried(lambda: end.recv(SIZE), BlockingIOError)


class MultiprocessingPipe(PythonPeer):
    """multiprocessing.Pipe, send_bytes and recv_bytes."""

    def open(self, how: How) -> tuple[Any, Any]:
        self._ours, self._theirs = SPAWN.Pipe()
        return self._ours, self._theirs

    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        receive, send = _taker(how, ours), ours.send_bytes

        def call() -> None:
            send(MESSAGE)
            receive()

        return call

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        receive, send = _taker(how, theirs), theirs.send_bytes
        return lambda: send(receive())

    def close(self) -> None:
        super().close()
        self._ours.close()
        self._theirs.close()


def _taker(how: How, end: Connection) -> Callable[[], bytes]:
    if how is How.WOKEN:
        return end.recv_bytes

    def poll() -> bytes:
        while not end.poll(0):
            continue
        return end.recv_bytes()

    return poll
