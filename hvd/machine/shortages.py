"""A shortage of every process that a domain has started: it gets no more descriptors, or memory, until that is over.

Each one's soft limit is lowered; whom it forks then inherits that. A domain's first process has its own way
(native/fault_orders.hpp). There may be many processes, and they fork meanwhile, so a process of the machine's goes
through them, and the machine waits for it no more than for a halter. What each had before stands in a memory file that
the machine holds: brokers come and go.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from itertools import count

from hvd.machine.children import Child
from hvd.machine.halts import has_children
from hvd.machine.processes import fork_process
from hvd.transport.descendants import family
from hvd.transport.machine_link import DESCRIPTORS, MEMORY
from hvd.transport.process import die_with_parent, parent_of
from hvd.transport.records import dataclass
from hvd.transport.run_dir import start_time

ROLE = "denier"
WELL = "exited with status 0"
LIMITS = {DESCRIPTORS: resource.RLIMIT_NOFILE, MEMORY: resource.RLIMIT_DATA}
NO_MEMORY_BYTES = 1
"""With a soft limit of 0 the kernel refuses nothing up to the hard one."""
NOTE = struct.Struct("<4q")
"""pid, when it started, its soft limit before, and now. -1 is none."""
NOTES_MAX = 16_384
PASSES_MAX = 32
"""Over all processes, the last of which find nothing to do: whoever forks faster than that is gone through again."""
SETTLES_S = (0.01, 0.05, 0.4)
"""Between passes that find nothing to do. Whoever is being forked has the limits of before, and is listed only when its
parent's memory has been copied: milliseconds, of a large one a hundred.
"""
TRIES_MAX = 5
"""Of one way through all processes: the denier may be killed, or find no memory."""


class Unfinished(ChildProcessError):
    """Processes were left as they were; the text says which and why."""


@dataclass(slots=True)
class Shortage:
    """Of one domain."""

    domain: Child
    wanted: str
    """What its processes are to get no more of; "": they are to get everything."""
    notes: int = -1
    """The memory file, from when the first limit may be lowered until the last is back."""
    done: str = ""
    """What they may have been denied."""
    doing: str = ""
    tries: int = 0
    denier: Child | None = None


class Shortages:
    """Every domain whose processes are denied something, or are given it back."""

    def __init__(self, adopt: Callable[[Child], None]) -> None:
        """`adopt` has the machine reap a new child."""
        self._adopt = adopt
        self._shortages: dict[int, Shortage] = {}
        """By the pidfd of the domain's first process."""

    def deny(self, domain: Child, what: str) -> None:
        """No more of it from here on; "": as it was before. Nothing where there are no processes, or it is so."""
        shortage = self._shortages.get(domain.pidfd)
        if shortage is None:
            if not what or not has_children(domain.pid):
                return
            shortage = self._shortages[domain.pidfd] = Shortage(domain, what)
        is_new = what != shortage.wanted
        shortage.wanted, shortage.tries = what, 0
        if shortage.denier is None:
            self._go_on(shortage)
        elif is_new and shortage.doing != what:
            shortage.denier.signal(signal.SIGKILL)  # nobody waits until it has looked often enough

    def ended(self, denier: Child, how: str) -> None:
        """A denier was reaped: again if it failed, or something else is wanted by now."""
        shortage = next((each for each in self._shortages.values() if each.denier is denier), None)
        if shortage is None:
            return
        shortage.denier = None
        well = how.startswith(WELL)
        if well and not shortage.doing:
            self._close(shortage)
        if shortage.wanted != shortage.done or not well:
            self._go_on(shortage)
        elif not shortage.done:
            del self._shortages[shortage.domain.pidfd]

    def forget(self, domain: Child) -> None:
        """It is dead, and all it had started."""
        if (shortage := self._shortages.pop(domain.pidfd, None)) is not None:
            self._close(shortage)

    def clear(self) -> None:
        """All are dead."""
        while self._shortages:
            self._close(self._shortages.popitem()[1])

    def _go_on(self, shortage: Shortage) -> None:
        """To what is wanted; from one shortage to another everything is given back first."""
        if shortage.tries >= TRIES_MAX or not (shortage.wanted or shortage.done):
            return
        shortage.tries += 1
        with contextlib.suppress(OSError):  # no process or file to be had: the fault's witness sees what is not hit
            if shortage.notes < 0:
                shortage.notes = os.memfd_create(f"hvd-{ROLE}", os.MFD_CLOEXEC)
            shortage.doing = shortage.wanted if shortage.done in ("", shortage.wanted) else ""
            what, shortage.done = shortage.done, shortage.doing or shortage.done
            walk = Walk(shortage.domain, shortage.doing or what, shortage.notes)
            body = walk.deny if shortage.doing else walk.give_back
            pid = fork_process(ROLE, {shortage.domain.pidfd, shortage.notes}, body)
            shortage.denier = Child(ROLE, pid)
            self._adopt(shortage.denier)

    def _close(self, shortage: Shortage) -> None:
        if shortage.notes >= 0:
            os.close(shortage.notes)
        shortage.notes, shortage.done = -1, ""


class Walk:
    """In the denier: through all processes of a domain but its first, again and again until there is nothing to do."""

    def __init__(self, domain: Child, what: str, notes: int) -> None:
        self._domain, self._what, self._limit, self._file = domain, what, LIMITS[what], notes
        self._before: dict[tuple[int, int], int] = {}
        """Soft limits, by pid and start."""
        self._lowered: set[int] = set()
        """What they were lowered to."""
        self._family: set[int] = set()

    def deny(self) -> None:
        """Lower what is not lowered yet. Unfinished."""
        self._begin()
        self._repeat(self._lower)

    def give_back(self) -> None:
        """What they had; who was born meanwhile gets as much as the others had at most. Unfinished.

        Whoever has set its limit itself meanwhile keeps it.
        """
        self._begin()
        self._repeat(self._restore)

    def _begin(self) -> None:
        """As the user whose they are, who may, where root without CAP_SYS_RESOURCE may not; with the notes so far, by
        whichever denier they were made."""
        for pid in self._members():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                _become_owner(pid)
                break
        untorn = os.pread(self._file, os.fstat(self._file).st_size, 0)
        for pid, started, before, now in NOTE.iter_unpack(untorn[: len(untorn) // NOTE.size * NOTE.size]):
            self._before[pid, started] = before  # the last that it had set itself
            self._lowered.add(now)

    def _repeat(self, change: Callable[[int, int, int], int | None]) -> None:
        settles = iter(SETTLES_S)
        for _ in range(PASSES_MAX):
            left: dict[int, OSError] = {}
            if sum(self._apply(change, pid, left) for pid in self._members()):
                settles = iter(SETTLES_S)
            elif (settle_s := next(settles, None)) is None:
                break
            else:
                time.sleep(settle_s)
        else:
            raise Unfinished(f"domain {self._domain.domid} forks faster than {PASSES_MAX} times through all of them")
        if left:
            pid, error = left.popitem()
            raise Unfinished(f"domain {self._domain.domid}: process {pid}, one of {len(left) + 1}: {error.strerror}")

    def _members(self) -> list[int]:
        self._family = set(members := family(self._domain.pid))
        return [] if self._domain.is_over() else members[1:]

    def _apply(self, change: Callable[[int, int, int], int | None], pid: int, left: dict[int, OSError]) -> bool:
        """Whether its limit was changed. Its number may be another's meanwhile, who is to notice nothing."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError), _process(pid) as ends:
            if ends() or parent_of(pid) not in self._family:
                return False
            try:
                soft, hard = resource.prlimit(pid, self._limit)
                new = change(pid, soft, hard)
                if new is None:
                    return False
                before = resource.prlimit(pid, self._limit, (new, hard))
            except PermissionError as error:
                if not ends():
                    left[pid] = error
                return False
            if ends():
                resource.prlimit(pid, self._limit, before)
            return True
        return False

    def _lower(self, pid: int, soft: int, hard: int) -> int | None:
        least = NO_MEMORY_BYTES if self._what == MEMORY else _lowest_free(pid)
        if soft in self._lowered or 0 <= soft <= least or len(self._before) >= NOTES_MAX:
            return None
        started = start_time(pid)
        if started is None:
            return None
        os.write(self._file, NOTE.pack(pid, started, soft, least))
        self._before[pid, started] = soft
        self._lowered.add(least)
        return least

    def _restore(self, pid: int, soft: int, hard: int) -> int | None:
        if soft not in self._lowered:
            return None
        most = max(self._before.values(), key=_as_height)
        before = min(self._before.get((pid, start_time(pid) or 0), most), hard, key=_as_height)
        return None if before == soft else before


def _become_owner(pid: int) -> None:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
        ids = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in status)
               if name in ("Uid", "Gid")}  # fmt: skip
    if (ids["Uid"], ids["Gid"]) != (os.getuid(), os.getgid()):
        parent = os.getppid()
        os.setresgid(*[ids["Gid"]] * 3)
        os.setresuid(*[ids["Uid"]] * 3)
        die_with_parent(parent)  # that is over when the user changes


def _as_height(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def _lowest_free(pid: int) -> int:
    """With it as the limit nothing more can be opened, and what is open stays."""
    taken = set(os.listdir(f"/proc/{pid}/fd"))
    return next(number for number in count() if str(number) not in taken)


@contextlib.contextmanager
def _process(pid: int) -> Iterator[Callable[[], bool]]:
    """What says whether the process that has this number now has ended. ProcessLookupError when there is none."""
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        yield lambda: bool(poll.poll(0))
    finally:
        os.close(descriptor)
