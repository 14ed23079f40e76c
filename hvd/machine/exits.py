"""Sees a process's end before the kernel has taken its memory apart.

A pidfd tells of the end when the last thread is gone, and the last one takes the memory with it: milliseconds. A thread
that is not the last goes at once, and a pidfd of its own tells that (PIDFD_THREAD, Linux 6.9). Whether all have ended
their program for good, which is what a fence asks, their flags say: PF_EXITING (include/linux/sched.h) never goes.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from hvd.machine.children import Child, describe_end
from hvd.transport.process import PIDFD_THREAD, run_in_short_slices

PF_EXITING = 0x4
FLAGS, EXIT_CODE = 6, -1
"""Fields of /proc/PID/stat, counted behind the name (proc(5))."""
THREADS_MAX = 2
"""Threads of a process that are watched, its first one and another: one of them is not the last to go. As many however
many there are by then: what the machine holds for a domain does not depend on who was first."""
PATIENCE_S, BETWEEN_S = 0.004, 0.0001
"""For the threads that are not past their program yet, once the first is: one may be in the middle of a system call."""
READ_BYTES = 4096
STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Exits:
    """The watched threads of all children, by descriptor."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._by_descriptor: dict[int, Child] = {}

    def follow(self, child: Child, *, is_waited_for: bool) -> None:
        """It has the threads that it will have. Nothing where the kernel has no pidfd of a thread, or it has gone.

        `is_waited_for`: the broker, or a driver domain, whose guests stand still until its end is known. The other is
        to end soon, whoever else wants its CPU then; of others' it would be a favour that nobody has granted.
        """
        if child in self._by_descriptor.values():
            return
        try:
            others = sorted(tid for tid in _threads(child.pid) if tid != child.pid)
            for tid in [child.pid, *others][:THREADS_MAX] if others else []:
                descriptor = os.pidfd_open(tid, PIDFD_THREAD)
                self._by_descriptor[descriptor] = child
                self._epoll.register(descriptor, select.EPOLLIN)
                if is_waited_for and tid != child.pid:
                    run_in_short_slices(tid)
        except OSError:
            return

    def take(self, descriptor: int) -> Child | None:
        """The child one of whose threads has ended, told once a thread."""
        child = self._by_descriptor.pop(descriptor, None)
        if child is not None:
            self._close(descriptor)
        return child

    def forget(self, child: Child) -> None:
        """It has been reaped."""
        for descriptor in [each for each, whose in self._by_descriptor.items() if whose is child]:
            del self._by_descriptor[descriptor]
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        os.close(descriptor)


def how_it_ended(child: Child) -> str | None:
    """In words, when none of its threads, and no child of its, will run its program any more; None: reap it first.

    None also for a thread that ended alone, and for who ended well: nobody is in a hurry then.
    """
    try:
        code = _exit_code(child.pid)
        if code is None:
            return None
        child.signal(signal.SIGKILL)  # nothing to who is ending; whoever pretends to can start no thread now
        return describe_end(*code) if _all_are_exiting(child.pid) and not _has_children(child.pid) else None
    except OSError:
        return None  # it is gone, or the kernel does not say


def _exit_code(pid: int) -> tuple[int, int] | None:
    """(si_code, si_status) of a whole process that is ending with anything but 0; None: it is not, or is not seen."""
    status = int(_stat(f"/proc/{pid}/stat")[EXIT_CODE])
    if status == 0 or status & 0x7F in STOPS:  # a process that is stopped has the signal there too
        return None
    if os.WIFSIGNALED(status):
        return (os.CLD_DUMPED if os.WCOREDUMP(status) else os.CLD_KILLED), os.WTERMSIG(status)
    return os.CLD_EXITED, os.WEXITSTATUS(status)


def _all_are_exiting(pid: int) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not all(_is_exiting(pid, tid) for tid in _threads(pid)):
        if time.monotonic() > until:
            return False
        time.sleep(BETWEEN_S)
    return True


def _is_exiting(pid: int, tid: int) -> bool:
    try:
        return bool(int(_stat(f"/proc/{pid}/task/{tid}/stat")[FLAGS]) & PF_EXITING)
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has gone


def _has_children(pid: int) -> bool:
    """In a PID namespace of its own whoever else there is descends from it. OSError where the kernel does not tell.

    Its first thread last: to that go the children of another that goes meanwhile.
    """
    others = [f"/proc/{pid}/task/{tid}/children" for tid in _threads(pid) if tid != pid]
    for path in others:
        with suppress(FileNotFoundError, ProcessLookupError):
            if _read(path):
                return True
    return bool(_read(f"/proc/{pid}/task/{pid}/children"))


def _threads(pid: int) -> list[int]:
    return [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - half the time, and somebody waits


def _stat(path: str) -> list[bytes]:
    return _read(path).rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, READ_BYTES)
    finally:
        os.close(descriptor)
