"""Messages with descriptors over a Unix seqpacket socket: one msgpack list a message, SCM_RIGHTS beside it."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import msgpack

from hvd.transport.errors import PeerFault

T = TypeVar("T")
DESCRIPTORS_PER_MESSAGE = 16
BYTES_PER_MESSAGE = 65_536


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected seqpacket ends, both non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def send_message(sock: socket.socket, message: list[Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message; the descriptors stay open here. BlockingIOError when the other end does not read."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([msgpack.packb(message)], rights, socket.MSG_NOSIGNAL)


def first_message(sock: socket.socket, size: int) -> bytes | None:
    """What came first, and stays; None when there is nothing yet, b"" when there will be nothing any more."""
    try:
        return _past_reset(lambda: sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return None
    except OSError:
        return b""


def drop_first_message(descriptor: int) -> None:
    """What `first_message` has shown."""
    _past_reset(lambda: os.read(descriptor, 1))


def _past_reset(receive: Callable[[], T]) -> T:
    """ECONNRESET is told once, and ahead of what the other end sent: that it closed with something of ours unread."""
    try:
        return receive()
    except ConnectionResetError:
        return receive()


def receive_message(sock: socket.socket) -> tuple[list[Any], list[int]] | None:
    """One message and the descriptors that came with it (close-on-exec), or None at end of file: behind all that the
    other end had sent, whatever of ours it had not read.

    BlockingIOError when there is none yet. PeerFault, every descriptor closed, when it is cut short or not a list.
    """
    size = socket.CMSG_SPACE(DESCRIPTORS_PER_MESSAGE * array.array("i").itemsize)
    data, ancillary, flags, _ = _past_reset(lambda: sock.recvmsg(BYTES_PER_MESSAGE, size, socket.MSG_CMSG_CLOEXEC))
    descriptors = _descriptors(ancillary)
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise PeerFault("a message on a descriptor socket was cut short")
        if not data and not descriptors:
            return None
        message = msgpack.unpackb(data)
        if not isinstance(message, list) or not message:
            raise PeerFault("a message on a descriptor socket is not a list")
    except (PeerFault, ValueError, msgpack.exceptions.UnpackException) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise PeerFault(str(error)) from None
    return message, descriptors


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
