"""A cluster's directory: one machine at a time owns it, and leaves nothing of it behind."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

LOCK = "machine.lock"
PID_LOCK = "machine.pid"
_locks: dict[str, int] = {}


class RunDirBusy(Exception):
    """Another machine runs in this directory."""


def claim(run_dir: str) -> None:
    """Create the directory (0700) and lock it for this process; RunDirBusy when a machine runs there.

    A POSIX lock: it belongs to the process, is not inherited by a fork, and ends with us however we end.
    """
    path = Path(run_dir)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise RunDirBusy(f"{run_dir} belongs to another user")
    path.chmod(0o700)
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RunDirBusy(f"a machine runs in {run_dir} already") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    _locks[run_dir] = descriptor
    (path / "log").mkdir(mode=0o700, exist_ok=True)


def release(run_dir: str) -> None:
    """Remove what a running machine keeps in its directory; logs stay."""
    path = Path(run_dir)
    shutil.rmtree(path / "domains", ignore_errors=True)
    for name in ("control", "events", LOCK):
        (path / name).unlink(missing_ok=True)
    os.close(_locks.pop(run_dir))
