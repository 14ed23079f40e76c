"""iceoryx2's Python package: publish and subscribe through shared memory; its event service where an end sleeps."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable
from typing import Any

from hvd.toolstack.bench.peers.peer import MESSAGE, Absent, How, PythonPeer


class Payload(ctypes.Structure):
    """64 bytes."""

    _fields_ = (("data", ctypes.c_uint8 * len(MESSAGE)),)


class Iceoryx(PythonPeer):
    """A service a direction."""

    def open(self, how: How) -> tuple[Any, Any]:
        try:
            iox2 = importlib.import_module("iceoryx2")
        except ImportError as error:
            raise Absent(f"the Python package iceoryx2 is not here ({error}): pip install 'hvd[bench]'") from error
        self._node = _node(iox2)
        name = f"hvd-bench-{os.getpid()}-{how}"
        return (_Out(iox2, self._node, f"{name}-ping", how), _In(iox2, self._node, f"{name}-pong", how)), name

    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        send, receive, message = ours[0].send, ours[1].receive, Payload((ctypes.c_uint8 * 64)(*MESSAGE))

        def call() -> None:
            send(message)
            receive()

        return call

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        iox2 = importlib.import_module("iceoryx2")
        node = _node(iox2)
        incoming, outgoing = _In(iox2, node, f"{theirs}-ping", how), _Out(iox2, node, f"{theirs}-pong", how)

        def answer() -> Any:
            outgoing.send(incoming.receive())
            return node  # which must live as long as its ends

        return answer

    def close(self) -> None:
        """The answering process was killed, which leaves what it shared: the package removes that of dead nodes."""
        super().close()
        del self._call
        self._node.try_cleanup_dead_nodes()
        del self._node


class _Out:
    """The sending end of a service."""

    def __init__(self, iox2: Any, node: Any, name: str, how: How) -> None:
        self._publisher = _topic(iox2, node, name).publisher_builder().create()
        self._notify = _event(iox2, node, name).notifier_builder().create().notify if how is How.WOKEN else _nothing

    def send(self, message: Payload) -> None:
        self._publisher.send_copy(message)
        self._notify()


class _In:
    """The receiving end; a sample is copied out and given back."""

    def __init__(self, iox2: Any, node: Any, name: str, how: How) -> None:
        self._subscriber = _topic(iox2, node, name).subscriber_builder().create()
        woken = how is How.WOKEN
        self._wait = _event(iox2, node, name).listener_builder().create().blocking_wait if woken else _nothing

    def receive(self) -> Payload:
        while (sample := self._subscriber.receive()) is None:
            self._wait()
        message = Payload.from_buffer_copy(sample.payload().contents)
        sample.delete()
        return message


def _node(iox2: Any) -> Any:
    iox2.set_log_level(iox2.LogLevel.Error)
    return iox2.NodeBuilder.new().signal_handling_mode(iox2.SignalHandlingMode.Disabled).create(iox2.ServiceType.Ipc)


def _topic(iox2: Any, node: Any, name: str) -> Any:
    return node.service_builder(iox2.ServiceName.new(name)).publish_subscribe(Payload).open_or_create()


def _event(iox2: Any, node: Any, name: str) -> Any:
    return node.service_builder(iox2.ServiceName.new(name)).event().open_or_create()


def _nothing() -> None:
    """Nobody sleeps."""
