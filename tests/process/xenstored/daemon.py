"""Debian's own xenstored and oxenstored, without Xen: unpacked, run with no_xen.c before them, and spoken to."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.xenstored.clients import DEADLINE_S, RingClient, SocketClient

HERE = Path(__file__).parent
UTILS = ("/usr/lib/xen-4.17/bin", "/usr/libexec/xen/bin", "/usr/lib/xen/bin")
VARIABLE = "HVD_XEN_UTILS"
"""Names the directory with xenstored, oxenstored and test-xenstore where they are unpacked and not installed."""


def xen_utils(name: str) -> Path:
    """A program of Debian's xen-utils; the test is skipped where it is not on this machine."""
    for directory in (os.environ.get(VARIABLE, ""), *UTILS):
        if directory and (found := Path(directory) / name).exists():
            return found
    pytest.skip(f"no {name} on this machine: xen-utils-4.17 is not installed; {VARIABLE} names where it is unpacked")


def client_tool(name: str) -> str:
    """A program of Debian's xenstore-utils."""
    return shutil.which(name) or pytest.skip(f"no {name} on this machine: xenstore-utils is not installed")


class Xenstored:
    """One running daemon: dom0's socket, and a ring page for each guest."""

    def __init__(self, socket: Path, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.socket = socket
        self.process = process
        self._directory = directory
        self._events = os.open(directory / "events", os.O_RDWR | os.O_CLOEXEC)

    def ring(self, domid: int) -> RingClient:
        with (self._directory / str(domid)).open("r+b") as file:
            page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        return RingClient(page, lambda: self._notify(domid))

    def _notify(self, domid: int) -> None:
        os.write(self._events, struct.pack("<I", domid))

    def close(self) -> None:
        os.close(self._events)
        self.process.kill()
        self.process.wait(DEADLINE_S)


@contextmanager
def xenstored(tmp_path: Path) -> Iterator[Xenstored]:
    """Xen's C daemon, with an empty store and two guests that it has not been told of."""
    daemon, directory = xen_utils("xenstored"), tmp_path / "no-xen"
    shim = tmp_path / "no_xen.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, HERE / "no_xen.c", "-ldl"], check=True)
    directory.mkdir()
    os.mkfifo(directory / "events")
    (directory / "xsd_port").write_text("0")
    for name in ("1", "2", "xsd_kva"):
        (directory / name).write_bytes(b"\0" * mmap.PAGESIZE)
    environment = {**os.environ, "NO_XEN": str(directory), "LD_PRELOAD": str(shim), "XENSTORED_RUNDIR": str(tmp_path)}
    ready, started = os.pipe()
    process = subprocess.Popen(
        [daemon, "-N", "-P", "--pid-file", tmp_path / "pid"], env=environment, stdout=started,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(started)
    with os.fdopen(ready, "rb") as told:
        assert told.readline().strip() == str(process.pid).encode()  # -P: it says so when its socket is there
        found = Xenstored(tmp_path / "socket", directory, process)
        try:
            with SocketClient(found.socket):
                yield found
        finally:
            found.close()
