"""Debian's own xenstored and test-xenstore, without Xen: found, run with no_xen.c before them, and spoken to."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.bench.peers.xenstored import XENSTORED, XensDaemon, find, running
from tests.process.xenstored.clients import RingClient, SocketClient

GUESTS = 2


def xen_utils(name: str) -> Path:
    """A program of Debian's xen-utils; the test is skipped where it is not on this machine."""
    try:
        return find(name)
    except Absent as why:
        pytest.skip(str(why))


def client_tool(name: str) -> str:
    """A program of Debian's xenstore-utils."""
    return shutil.which(name) or pytest.skip(f"no {name} on this machine: xenstore-utils is not installed")


class Xenstored:
    """One running daemon: dom0's socket, and a ring page for each guest."""

    def __init__(self, daemon: XensDaemon) -> None:
        self.socket = daemon.socket
        self._directory = daemon.directory
        self._events = os.open(daemon.directory / "events", os.O_RDWR | os.O_CLOEXEC)

    def ring(self, domid: int) -> RingClient:
        with (self._directory / str(domid)).open("r+b") as file:
            page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        return RingClient(page, lambda: self._notify(domid))

    def _notify(self, domid: int) -> None:
        os.write(self._events, struct.pack("<I", domid))

    def close(self) -> None:
        os.close(self._events)


@contextmanager
def xenstored() -> Iterator[Xenstored]:
    """Xen's C daemon, with an empty store and two guests that it has not been told of."""
    xen_utils(XENSTORED)
    with running(XENSTORED, GUESTS) as daemon, SocketClient(daemon.socket):
        found = Xenstored(daemon)
        try:
            yield found
        finally:
            found.close()
