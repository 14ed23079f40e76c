"""pyzmq over ipc: a pair of sockets, each with its input/output thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import zmq

from hvd.toolstack.bench.peers.peer import MESSAGE, How, PythonPeer, retried


class ZeroMqPair(PythonPeer):
    """PAIR sockets; the bare minimum of ZeroMQ."""

    OURS, THEIRS = zmq.PAIR, zmq.PAIR

    def open(self, how: How) -> tuple[Any, Any]:
        self._directory = tempfile.TemporaryDirectory(prefix="hvd-zmq-")
        address = f"ipc://{self._directory.name}/s"
        self._context = zmq.Context()
        self._socket = self._context.socket(self.OURS)
        self._socket.linger = 0
        self._socket.connect(address)
        return self._socket, address

    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        receive, send = _receiver(how, ours), ours.send

        def call() -> None:
            send(MESSAGE)
            receive()

        return call

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        end: Any = zmq.Context.instance().socket(cls.THEIRS)
        end.bind(theirs)
        receive, send = _receiver(how, end), end.send
        return lambda: send(receive())

    def close(self) -> None:
        super().close()
        self._socket.close(0)
        self._context.term()
        self._directory.cleanup()


class ZeroMqDealerRouter(ZeroMqPair):
    """DEALER and ROUTER, what hypercalls go over, without CURVE and without a message's packing."""

    OURS, THEIRS = zmq.DEALER, zmq.ROUTER

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        end: Any = zmq.Context.instance().socket(cls.THEIRS)
        end.bind(theirs)
        receive, send = end.recv_multipart, end.send_multipart
        return lambda: send(receive())


def _receiver(how: How, end: Any) -> Callable[[], Any]:
    return end.recv if how is How.WOKEN else retried(lambda: end.recv(zmq.NOBLOCK), zmq.Again)
