"""What a process of hvd asks of the kernel for itself: to die with the machine, a name, a sibling."""

from __future__ import annotations

import contextlib
import os

from hvd.transport import _native

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PIDFD_THREAD = os.O_EXCL
"""Of pidfd_open(2): a descriptor of one thread; EINVAL before Linux 6.9."""

SHORT_SLICE_NS = 100_000


def die_with_parent(parent_pid: int) -> None:
    """SIGKILL us when our parent ends; exits at once if it has ended before this took hold."""
    _native.die_with_parent()
    if os.getppid() not in (parent_pid, 0):  # 0: the parent lives in another PID namespace and cannot be named
        os._exit(1)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


def write_file(path: str, text: str, directory: int | None = None) -> None:
    """Into a file that is there, below an open directory if one is given. OSError.

    By system calls alone: pathlib would cost each domain 1.2 MiB of pages that are the zygote's until then.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def set_process_name(name: str) -> None:
    """What `ps -e` and `top` show (15 bytes of it)."""
    _native.set_process_name(name)


def fork_sibling(namespaces: int) -> int:
    """Fork as `os.fork`, but the child is our parent's; `namespaces` are CLONE_NEW* flags. OSError if refused."""
    return _native.fork_sibling(namespaces)


def start_sleeper() -> None:
    """A thread that does nothing until we end: it is gone long before the last one has taken our memory apart.

    Whoever has its pidfd hears of our end by that. Nothing when there is no thread to be had.
    """
    _native.start_sleeper()


def run_in_short_slices(thread: int = 0) -> None:
    """Have a thread (0: ours) come soon when it wakes, and give way after SHORT_SLICE_NS; its share stays the same.

    sched_setattr(2), sched_runtime of SCHED_OTHER: Linux 6.12. Nothing where the kernel does not let us.
    """
    with contextlib.suppress(OSError):
        _native.set_slice(thread, SHORT_SLICE_NS)


def run_in_usual_slices() -> None:
    """Undo `run_in_short_slices`, which children inherit."""
    with contextlib.suppress(OSError):
        _native.set_slice(0, 0)


def exit_on_fatal_signals() -> None:
    """SIGSEGV and its like end us with status 128 + signal, even as the first process of a PID namespace."""
    _native.exit_on_fatal_signals()


def report_fatal_signals(descriptor: int) -> None:
    """Before they end us they are reported on this socket (fault_notice.py). Call it after faulthandler.enable."""
    _native.report_fatal_signals(descriptor)


def allow_tracing() -> None:
    """Whoever runs as our user may trace us, also where Yama would let only our ancestors."""
    _native.allow_tracing()
