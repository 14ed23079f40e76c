"""Sees a process's end before the kernel has taken its memory apart, and has that give way to who takes over.

A pidfd tells of the end when the last thread is gone, and the last one takes the memory with it: milliseconds. A thread
that is not the last goes at once, and a pidfd of its own tells that (PIDFD_THREAD, Linux 6.9). Whether all have ended
their program for good, which is what a fence asks, their flags say: PF_EXITING (include/linux/sched.h) never goes.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hvd.machine.children import Child, describe_end
from hvd.transport.machine_link import REAPED
from hvd.transport.process import PIDFD_THREAD, run_in_short_slices

PF_EXITING = 0x4
FLAGS, EXIT_CODE = 6, -1
"""Fields of /proc/PID/stat, counted behind the name (proc(5))."""
THREADS_MAX, WAITED_FOR_MAX = 2, 4
"""Threads of a process that are watched, its first one and another: one of them is not the last to go. As many however
many there are by then: what the machine holds for a domain does not depend on who was first. Of whom others wait for
all that a runtime has, its sleeper and libzmq's two: the one that is watched may be the one that gets no CPU."""
PATIENCE_S, AGAIN_PATIENCE_S, BETWEEN_S = 0.004, 0.0002, 0.0001
"""For the threads that are not past their program yet, once the first is, and later: one may be in a system call."""
AGAIN_LEAST_S, AGAIN_MOST_S = 0.005, 0.16
"""After a look at whoever ends and has not ended yet, twice as long after each: it waits for a CPU, for a disk or for a
child of its. Until all of its memory is taken apart may be long then, where others want the CPUs."""
GIVES_WAY_NICE = 5
"""A quarter of a CPU's time beside one other who wants it, and no less: what the dead hold of the kernel's locks as
they go, sockets' and epoll sets' among them, we may wait for ourselves."""
GIVES_WAY_S = 0.05
"""So long what is left of the dead is taken apart on CPUs that nobody else wants: milliseconds of work, of which others
wait for none."""
TOLD_AFTER_S = 0.05
"""How long after a reap its moments are told: whoever recovers from the death wants the CPUs meanwhile."""
TOLD_OF = frozenset({"domain", "broker", "zygote"})
READ_BYTES = 4096
STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Exits:
    """The watched threads of all children, by descriptor."""

    def __init__(
        self, epoll: select.epoll, on_late: Callable[[Child], None], tell: Callable[[list[Any]], None]
    ) -> None:
        """`on_late` is told of whom it is time to ask `how_it_ended` again, `tell` what the broker is to hear."""
        self._epoll = epoll
        self._on_late = on_late
        self._tell = tell
        self._suspected_ns: dict[int, int] = {}
        """By pid: when a thread of it was first seen to have ended."""
        self._fenced: dict[int, tuple[str, int]] = {}
        """By pid: its role until then, and when it was known that no thread of it runs any more."""
        self._to_tell: deque[tuple[float, list[Any]]] = deque()
        """Of whom has been reaped: when it is told, on the monotonic clock, in order."""
        self._late: dict[int, tuple[Child, float]] = {}
        """By pid: who is to be looked at again, and when, on the monotonic clock."""
        self._waited_s: dict[int, float] = {}
        """By pid, before the last look at who had not ended."""
        self._by_descriptor: dict[int, Child] = {}
        self._may_let_give_way = comes_back()
        self._give_way_until: dict[int, float] = {}
        """By pid, on the monotonic clock."""

    def follow(self, child: Child, *, is_waited_for: bool) -> None:
        """It has the threads that it will have. Nothing where the kernel has no pidfd of a thread, or it has gone.

        `is_waited_for`: the broker, or a driver domain, whose guests stand still until its end is known. The other is
        to end soon, whoever else wants its CPU then; of others' it would be a favour that nobody has granted.
        """
        if child in self._by_descriptor.values():
            return
        try:
            others = sorted(tid for tid in _threads(child.pid) if tid != child.pid)
            most = WAITED_FOR_MAX if is_waited_for else THREADS_MAX
            for tid in [child.pid, *others][:most] if others else []:
                descriptor = os.pidfd_open(tid, PIDFD_THREAD)
                try:
                    self._epoll.register(descriptor, select.EPOLLIN)
                except OSError:
                    os.close(descriptor)
                    raise
                self._by_descriptor[descriptor] = child
                if is_waited_for and tid != child.pid:
                    run_in_short_slices(tid)
        except OSError:
            return

    def take(self, descriptor: int) -> Child | None:
        """The child one of whose threads has ended, told once a thread."""
        child = self._by_descriptor.pop(descriptor, None)
        if child is not None:
            self._suspected_ns.setdefault(child.pid, time.monotonic_ns())
            self._close(descriptor)
        return child

    def forget(self, child: Child) -> None:
        """It has been reaped. When it was suspected, fenced and reaped is told a little later."""
        now = time.monotonic_ns()
        role, fenced_ns = self._fenced.pop(child.pid, (child.role, now))
        suspected_ns = self._suspected_ns.pop(child.pid, fenced_ns)
        if role in TOLD_OF:
            name = "" if role == "domain" else role
            told = [REAPED, child.domid, child.incarnation, name, suspected_ns, fenced_ns, now]
            self._to_tell.append((now / 1e9 + TOLD_AFTER_S, told))
        self._give_way_until.pop(child.pid, None)
        self._late.pop(child.pid, None)
        self._waited_s.pop(child.pid, None)
        for descriptor in [each for each, whose in self._by_descriptor.items() if whose is child]:
            del self._by_descriptor[descriptor]
            self._close(descriptor)

    def let_give_way(self, child: Child) -> None:
        """It has ended, and somebody may wait for what follows, on the CPU that takes its memory apart.

        Nothing where it would be for good: beside somebody who computes, its memory and descriptors would linger.
        """
        if not self._may_let_give_way:
            return
        _be_nicer(child.pid, GIVES_WAY_NICE)
        self._give_way_until[child.pid] = time.monotonic() + GIVES_WAY_S

    def how_it_ended(self, child: Child) -> str | None:
        """In words, when none of its threads, and no child of its, will run its program any more; None: reap it first.

        Of one that is about to end it is asked again a little later.
        """
        waited_s = self._waited_s.pop(child.pid, 0.0)
        how = how_it_ended(child, AGAIN_PATIENCE_S if waited_s else PATIENCE_S)
        if how is not None:
            self._fenced[child.pid] = child.role, time.monotonic_ns()
        elif is_ending(child):
            wait_s = self._waited_s[child.pid] = min(2 * waited_s, AGAIN_MOST_S) or AGAIN_LEAST_S
            self._late[child.pid] = child, time.monotonic() + wait_s
        else:
            self._suspected_ns.pop(child.pid, None)  # that thread went alone, or all of them well
        return how

    def deadline(self) -> float | None:
        """When `expire` is to be called."""
        told = (at for at, _ in self._to_tell)
        return min((*self._give_way_until.values(), *(at for _, at in self._late.values()), *told), default=None)

    def expire(self, now: float) -> None:
        """Ask again of whom it is time to; whose memory is taken apart has its share of the CPUs again, for good.

        Whoever wants them: it is to be free soon.
        """
        for child in [child for child, at in self._late.values() if at <= now]:
            del self._late[child.pid]
            self._on_late(child)
        for pid in [pid for pid, until in self._give_way_until.items() if until <= now]:
            del self._give_way_until[pid]
            _be_nicer(pid, 0)
        while self._to_tell and self._to_tell[0][0] <= now:
            self._tell(self._to_tell.popleft()[1])

    def clear(self) -> None:
        """All have been killed: what is not told yet is news of nobody who comes."""
        self._suspected_ns.clear()
        self._fenced.clear()
        self._to_tell.clear()

    def _close(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        os.close(descriptor)


def comes_back() -> bool:
    """Whether we may have somebody be nice no longer: that takes CAP_SYS_NICE, or RLIMIT_NICE.

    Tried by a thread that ends with it (sched(7)); a user namespace's root has the capability and may not.
    """
    came_back = False

    def try_it() -> None:
        nonlocal came_back
        with suppress(OSError):
            own, thread = os.getpriority(os.PRIO_PROCESS, 0), threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, own + GIVES_WAY_NICE)
            os.setpriority(os.PRIO_PROCESS, thread, own)
            came_back = True

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return came_back


def how_it_ended(child: Child, patience_s: float = PATIENCE_S) -> str | None:
    """In words, when none of its threads, and no child of its, will run its program any more; None: reap it first.

    None also for a thread that ended alone, and for who ended well: nobody is in a hurry then.
    """
    try:
        code = _exit_code(child.pid)
        if code is None:
            return None
        child.signal(signal.SIGKILL)  # nothing to who is ending; whoever pretends to can start no thread now
        ended = _all_are_exiting(child.pid, patience_s) and not _has_children(child.pid)
        return describe_end(*code) if ended else None
    except OSError:
        return None  # it is gone, or the kernel does not say


def is_ending(child: Child) -> bool:
    """Whether the whole process is on its way to an end that `how_it_ended` may tell."""
    with suppress(OSError):
        return _exit_code(child.pid) is not None
    return False


def _exit_code(pid: int) -> tuple[int, int] | None:
    """(si_code, si_status) of a whole process that is ending with anything but 0; None: it is not, or is not seen."""
    status = int(_stat(f"/proc/{pid}/stat")[EXIT_CODE])
    if status == 0 or status & 0x7F in STOPS:  # a process that is stopped has the signal there too
        return None
    if os.WIFSIGNALED(status):
        return (os.CLD_DUMPED if os.WCOREDUMP(status) else os.CLD_KILLED), os.WTERMSIG(status)
    return os.CLD_EXITED, os.WEXITSTATUS(status)


def _all_are_exiting(pid: int, patience_s: float = PATIENCE_S) -> bool:
    """Who is not after a moment is to come soon: SIGKILL is sent, and all that it may do yet is end.

    Not at once: one that waits for our own CPU would have it from us, and take the memory apart there before we are
    back, 2 ms. It has that CPU while we sleep.
    """
    until = time.monotonic() + patience_s
    late: list[int] = []
    while not_yet := [tid for tid in _threads(pid) if not _is_exiting(pid, tid)]:
        if time.monotonic() > until:
            return False
        for tid in late:
            run_in_short_slices(tid)
        late = not_yet
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


def _be_nicer(pid: int, than_we: int) -> None:
    """All its threads by so much, as far as there are any and the kernel lets us; 0: as nice as it was born."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):
        for tid in _threads(pid):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, tid, own + than_we)


def _threads(pid: int) -> list[int]:
    return [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]


def _stat(path: str) -> list[bytes]:
    return _read(path).rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, READ_BYTES)
    finally:
        os.close(descriptor)
