"""Tries what hvd does of the kernel, and answers with errnos: 0 is "it works". Nothing that was made stays."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CHILD_DEADLINE_S = 20
_CLONE3, _CLOSE_RANGE, _LANDLOCK_CREATE_RULESET = 435, 436, 444  # the same on every architecture
_LANDLOCK_VERSION = 1
_F_SEAL_FUTURE_WRITE = 0x0010
_NO_DESCRIPTOR = 2**32 - 1
_SCRIPT = Path(__file__).with_name("isolated_trials.py")


def answer_all(run_dir: str) -> dict[str, int]:
    """Every trial by name with its errno."""
    trials: dict[str, Callable[[], None]] = {
        "memfd": _seal_a_memfd,
        "pidfd": _signal_through_a_pidfd,
        "close_range": _close_a_range,
        "clone3": _call_clone3,
        "pty": _open_a_pty,
        "fuse": _open_fuse,
        "proc": _read_proc,
        "run_dir": lambda: _bind_a_socket(run_dir),
    }
    return {name: _errno_of(trial) for name, trial in trials.items()} | _isolated_answers()


def landlock_abi() -> int:
    """The version of the kernel's Landlock, from 1; -errno if it has none."""
    return _syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)


def _errno_of(trial: Callable[[], None]) -> int:
    try:
        trial()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _isolated_answers() -> dict[str, int]:
    """What the child says; nothing if it does not come to say it."""
    command = [sys.executable, "-I", "-S", str(_SCRIPT)]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=CHILD_DEADLINE_S)
        answers = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {str(name): int(code) for name, code in answers.items()}


def _syscall(number: int, *args: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *args)
    return result if result >= 0 else -ctypes.get_errno()


def _seal_a_memfd() -> None:
    """As a read-only grant is: the granter's old mapping goes on writing, a new writable one is refused."""
    descriptor = os.memfd_create("hvd-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        with mmap.mmap(descriptor, mmap.PAGESIZE) as old:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            old[0] = 1
            try:
                mmap.mmap(descriptor, mmap.PAGESIZE).close()
            except PermissionError:
                return
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    finally:
        os.close(descriptor)


def _signal_through_a_pidfd() -> None:
    descriptor = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(descriptor, 0)
    finally:
        os.close(descriptor)


def _close_a_range() -> None:
    """Of one descriptor, the highest number there can be, which nobody has."""
    if code := -_syscall(_CLOSE_RANGE, ctypes.c_uint(_NO_DESCRIPTOR), ctypes.c_uint(_NO_DESCRIPTOR), 0):
        raise OSError(code, os.strerror(code))


def _call_clone3() -> None:
    """With no arguments: a kernel that has it says EINVAL, one that has or permits it not says something else."""
    code = -_syscall(_CLONE3, None, ctypes.c_size_t(0))
    if code != errno.EINVAL:
        raise OSError(code, os.strerror(code))


def _open_a_pty() -> None:
    main, terminal = os.openpty()
    try:
        os.ttyname(terminal)
    finally:
        os.close(main)
        os.close(terminal)


def _open_fuse() -> None:
    os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))


def _read_proc() -> None:
    if str(Path("/proc/self").readlink()) != str(os.getpid()):
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))


def _bind_a_socket(run_dir: str) -> None:
    """In a directory of its own beside the cluster's, by way of /proc: no path is too long for that."""
    wanted = existing = Path(run_dir).absolute()
    while not existing.exists():
        existing = existing.parent
    if existing == wanted and existing.stat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    place = tempfile.mkdtemp(prefix=".hvd-doctor-", dir=existing)
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as endpoint:
            endpoint.bind(f"/proc/self/fd/{directory}/socket")
    finally:
        os.close(directory)
        shutil.rmtree(place)
