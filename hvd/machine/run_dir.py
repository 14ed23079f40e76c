"""A cluster's directory: one machine at a time owns it, and leaves nothing of it behind but its logs."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from hvd.transport.run_dir import CONTROL, DOMAINS, EVENTS, LOCK, LOG, XENSTORED, start_time

_locks: dict[str, int] = {}


class RunDirRefused(Exception):
    """The directory cannot be this machine's; the text says why."""


class NoRunDir(RunDirRefused):
    """There can be no such directory."""


def claim(run_dir: str) -> None:
    """Create the directory (0700) and lock it for this process; RunDirRefused when one runs there or it is not ours.

    NoRunDir when the host makes no such directory.

    A POSIX lock: it belongs to the process, is not inherited by a fork, and ends with us however we end.
    """
    try:
        os.makedirs(run_dir, 0o700, exist_ok=True)
        directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise NoRunDir(f"{run_dir} cannot be made: {error.strerror}") from None
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise RunDirRefused(f"{run_dir} belongs to another user")
        os.fchmod(directory, 0o700)
        _locks[run_dir] = _lock(directory, run_dir)
    finally:
        os.close(directory)
    os.makedirs(f"{run_dir}/{LOG}", 0o700, exist_ok=True)


def release(run_dir: str, *, everything: bool) -> None:
    """Remove what a running machine keeps in its directory; the logs stay unless `everything` goes."""
    import shutil  # for a machine's end alone

    for name in (DOMAINS, XENSTORED):
        shutil.rmtree(f"{run_dir}/{name}", ignore_errors=True)
    for name in (CONTROL, EVENTS):
        _unlink(f"{run_dir}/{name}")
    if everything:
        shutil.rmtree(run_dir, ignore_errors=True)
    _unlink(f"{run_dir}/{LOCK}")
    os.close(_locks.pop(run_dir))


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _lock(directory: int, run_dir: str) -> int:
    """The descriptor that holds the lock. A file that was removed between open and lock is no lock: again."""
    while True:
        descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                break
        except OSError:
            os.close(descriptor)
            raise RunDirRefused(f"a machine runs in {run_dir} already") from None
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()} {start_time(os.getpid())}\n".encode())
    return descriptor
