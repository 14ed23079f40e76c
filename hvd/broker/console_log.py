"""What domains' processes write to their standard descriptors (crash reports, early output), into their logs."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from hvd.broker.poller import Poller
from hvd.transport.ids import DomId
from hvd.transport.log_file import append

READ_BYTES = 65_536


class ConsoleLog:
    """One pipe a domain; read when it is readable, and once more at its death."""

    def __init__(self, run_dir: str, poller: Poller, on_read: Callable[[DomId], None]) -> None:
        """`on_read` is told whose pipe was read."""
        self._poller = poller
        self._on_read = on_read
        self._directory = f"{run_dir}/log"
        with suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        self._pipes: dict[DomId, tuple[int, str]] = {}

    def attach(self, domid: DomId, name: str, descriptor: int) -> None:
        self._pipes[domid] = descriptor, f"{self._directory}/{name}.log"
        self._poller.watch(descriptor, lambda: self.read(domid))

    def forget(self, domid: DomId) -> None:
        """Take in what is left and let go; the descriptor is the caller's to close."""
        self.read(domid)
        entry = self._pipes.pop(domid, None)
        if entry is not None:
            self._poller.unwatch(entry[0])

    def write(self, name: str, line: str) -> None:
        """A line of ours in a domain's log, whether its pipe is there or not."""
        append(f"{self._directory}/{name}.log", f"hvd: {line}\n".encode())

    def read(self, domid: DomId) -> None:
        """Append what is there now, at most one pipe's worth."""
        entry = self._pipes.get(domid)
        if entry is None:
            return
        try:
            data = os.read(entry[0], READ_BYTES)
        except OSError:
            return
        if data:
            append(entry[1], data)
            self._on_read(domid)
