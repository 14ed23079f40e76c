"""A toolstack program's line to a running machine: hypercalls with dom0's privilege, and events."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from typing import Any

import zmq

from hvd.toolstack.cluster.errors import NotRunning
from hvd.toolstack.cluster.events import EventStream
from hvd.toolstack.cluster.run_dirs import open_run_dir
from hvd.transport.hypercalls import HypercallClient, HypercallTimeout, client_name, socket_address
from hvd.transport.messages import SysctlEvents
from hvd.transport.run_dir import CONTROL, machine_pid

CLOSE_S = 2.0


class Connection:
    """May be used by several threads."""

    def __init__(self, run_dir: Path) -> None:
        """NotRunning when no machine runs there."""
        directory = open_run_dir(run_dir)
        pid = None if directory is None else machine_pid(directory)
        if directory is None or pid is None:
            if directory is not None:
                os.close(directory)
            raise NotRunning(
                f"no machine runs in {run_dir}; start one with `hvd up`, or name its directory with HVD_RUN_DIR"
            )
        self.run_dir = run_dir
        self.machine_pid = pid
        self.machine_pidfd = _pidfd(pid, directory, run_dir)
        self._directory = directory
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._client = HypercallClient(
            self._context, socket_address(directory, CONTROL), None, name=client_name(), end=self.machine_pidfd
        )

    def call(self, message: Any) -> Any:
        """Make a hypercall; HypercallError when it is refused, NotRunning when the machine ends before it answers."""
        try:
            with self._lock:
                return self._client.call(message)
        except HypercallTimeout:
            if self.machine_ended():
                raise NotRunning(f"the machine in {self.run_dir} has stopped") from None
            raise

    def events(self, after: int | None = None) -> EventStream:
        """News from now on, or from behind the event of that number on."""
        return EventStream(self._context, self._directory, self.machine_pidfd, self._events_after, after)

    def _events_after(self, number: int) -> dict[str, Any]:
        page: dict[str, Any] = self.call(SysctlEvents(number))
        return page

    def machine_ended(self) -> bool:
        return bool(select.select([self.machine_pidfd], [], [], 0)[0])

    def close(self) -> None:
        """Event streams that are still open are closed too.

        libzmq waits for a socket that nobody knows, since a signal's exception has come out of its making, for ever: it
        is left to that, and ends with this program.
        """
        self._client.close()
        ending = threading.Thread(target=self._context.destroy, kwargs={"linger": 0}, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        os.close(self.machine_pidfd)
        os.close(self._directory)


def _pidfd(pid: int, directory: int, run_dir: Path) -> int:
    """A descriptor of the very process that holds the lock, not of one that got its number later."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        descriptor = -1
    if machine_pid(directory) == pid and descriptor >= 0:
        return descriptor
    for each in (descriptor, directory):
        if each >= 0:
            os.close(each)
    raise NotRunning(f"the machine in {run_dir} has stopped")
