"""The domains' hypercall connections, our ends of them: held by the machine as well, so that they outlive the broker.

A domain whose connection ends is woken: libzmq's thread connects anew, which takes 0.75 ms on a CPU that others may
move data on. When a broker dies, nobody who asks nothing is to run for it. So the kernel's socket is kept open, by a
descriptor that nobody reads; the next broker ends it where the domain waits for an answer, and leaves it to the
domain's next hypercall otherwise (transport/call_words.py).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from hvd.broker.held import HeldDescriptors, connection_key


class Connections:
    """The newest of each endpoint, by its name: a domain needs one."""

    def __init__(self, held: HeldDescriptors) -> None:
        self._held = held

    def keep(self, name: str, descriptor: int, path: str) -> None:
        """One that libzmq has accepted at the socket of this path, in place of what was kept.

        Nothing where there is no room: then its end wakes the domain. It may have ended by now, and its number be
        another descriptor's: that is no connection of this socket's.
        """
        try:
            own = os.dup(descriptor)
        except OSError:
            return
        if _path(own) == path:
            with suppress(OSError):
                self._held.hold(connection_key(name), [own])
        else:
            os.close(own)

    def end(self, name: str) -> None:
        """Its domain is told, at once, whoever else has it open; nothing if none is kept."""
        key = connection_key(name)
        for descriptor in self._held.by_key.get(key, ()):
            sock = socket.socket(fileno=descriptor)
            with suppress(OSError):  # it has ended itself
                sock.shutdown(socket.SHUT_RDWR)
            sock.detach()
        self._held.let_go(key)


def _path(descriptor: int) -> str:
    """Of the socket that accepted this connection; empty if it is none."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return ""
    try:
        return str(sock.getsockname())
    finally:
        sock.detach()
