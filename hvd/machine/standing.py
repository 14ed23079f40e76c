"""How the machine stands to whoever started it: apart from its terminal and files, but ended with it until let go."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from types import FrameType

from hvd.transport.run_dir import LET_GO, LOG

MACHINE_LOG = "machine.log"
TAKEN = b""
"""There was something to read, and whoever came in between has read it."""


def detach(run_dir: str) -> None:
    """Leave the starter's session, directory and standard descriptors; what is printed goes to log/machine.log."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.chdir("/")
    os.umask(0o077)
    log = os.open(f"{run_dir}/{LOG}/{MACHINE_LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def end_on_sigterm() -> None:
    """Until the machine has its own way: end, but clean up on the way out."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def follow_owner(descriptor: int) -> None:
    """When the pipe's other end closes, this process gets SIGTERM, as if asked to power off, unless LET_GO came first.

    The kernel says so by SIGIO (signal-driven I/O): no thread, nothing in the machine's loop.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    following = True

    def hear(number: int, frame: FrameType | None) -> None:
        """It may be called again in the middle of itself: whoever lets go closes its end at once, and both are told."""
        nonlocal following
        events = dict(poll.poll(0)).get(descriptor, 0) if following else 0
        if not events:
            return
        following = False
        if not events & select.POLLIN or os.read(descriptor, len(LET_GO)) not in (LET_GO, TAKEN):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, descriptor)
        os.close(null)

    signal.signal(signal.SIGIO, hear)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    hear(signal.SIGIO, None)  # it may have been closed before we listened
