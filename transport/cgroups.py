"""Control groups: one for each domain's process, below one of its machine's, in every hierarchy that lets us.

Version 1 has a hierarchy for each controller or a few; a group of ours lies below the one that we are in. Version 2 has
one, in which a group with processes hands out no controllers: there ours lies below the topmost group that we may
change. See cgroups(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hvd.transport.process import write_file
from hvd.transport.records import dataclass
from hvd.transport.run_dir import lives, start_time
from hvd.transport.sandbox import RESERVED_KIB

CPU = "cpu"
CONTROLLERS = ("memory", "pids", CPU, "blkio", "io")
"""Those that we use; `io` is what version 2 calls `blkio`."""
BOUNDS = {
    ("memory", 1): "memory.limit_in_bytes",
    ("memory", 2): "memory.max",
    ("pids", 1): "pids.max",
    ("pids", 2): "pids.max",
}
CLUSTER_SHARES = {"cpu.shares": 1024, "cpu.weight": 100}
"""For each CPU: those whose groups share it have together what one process has, and the broker is such a process. With
sixteen times that, two storms of forks kept it from answering for 2 s (p99 1.6 s, where it is 0.4 s now)."""
SHARES_MAX = {"cpu.shares": 262_144, "cpu.weight": 10_000}
PREFIX = "hvd-"
PROCESSES, THREADS = "cgroup.procs", "tasks"
SUBTREE = "cgroup.subtree_control"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where controllers are, and the directory of the group we are in."""

    version: int
    controllers: tuple[str, ...]
    mount: str
    directory: str


def hierarchies(own: str, mounts: str, read: Callable[[str], str]) -> list[Hierarchy]:
    """From the texts of /proc/self/cgroup and mountinfo."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        paths.update({name: path for name in names.split(",") if not name.startswith("name=")})
    found = []
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            unified = kind[0] == "cgroup2"
            known = [""] if unified else [option for option in kind[2].split(",") if option in paths]
            if known:
                directory = fields[4] + _below(paths.get(known[0], "/"), fields[3])
                controllers = read(f"{directory}/cgroup.controllers").split() if unified else known
                found.append(Hierarchy(2 if unified else 1, tuple(controllers), fields[4], directory))
    return found


def may_make_groups(directory: str) -> bool:
    """Whether this process may make groups below that one and move itself there."""
    return os.access(directory, os.W_OK) and os.access(f"{directory}/{PROCESSES}", os.W_OK)


def _below(path: str, root: str) -> str:
    """The path within a mount that shows only what is under `root`."""
    relative = path.removeprefix(root.rstrip("/"))
    return "" if relative == "/" else relative


class MachineGroups:
    """The groups of the machine that this process is; their name says so to those who come after it."""

    def __init__(self) -> None:
        self._name = f"{PREFIX}{os.getpid()}.{start_time(os.getpid())}"
        self._made: list[DomainGroups] = []

    def make(self) -> list[DomainGroups]:
        """Make them, empty, and remove those of machines that are gone; nothing where we may not."""
        remove_abandoned()
        self.remove()
        for hierarchy in _ours():
            base = _base(hierarchy)
            if base is not None and (group := _make(hierarchy, base, self._name)) is not None:
                self._made.append(group)
        return list(self._made)

    def remove(self) -> None:
        """All of them; their processes are gone."""
        while self._made:
            _remove_all(self._made.pop().directory)


def remove_abandoned() -> bool:
    """Remove what killed machines have left; whether there was something."""
    found = False
    for hierarchy in _ours():
        base = _base(hierarchy)
        for entry in [] if base is None else os.scandir(base):
            if entry.name.startswith(PREFIX) and not _is_machine(entry.name.removeprefix(PREFIX)):
                _remove_all(entry.path)
                found = True
    return found


def _is_machine(name: str) -> bool:
    pid, _, born = name.partition(".")
    return not (pid.isdecimal() and born.isdecimal()) or lives(int(pid), int(born))


def _ours() -> list[Hierarchy]:
    found = hierarchies(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo"), _read)
    return [each for each in found if set(each.controllers) & set(CONTROLLERS)]


def _base(hierarchy: Hierarchy) -> str | None:
    """The group below which ours is, if there is one that we may change."""
    if hierarchy.version == 1:
        return hierarchy.directory if may_make_groups(hierarchy.directory) else None
    allowed = [path for path in _upwards(hierarchy) if may_make_groups(path)]
    return allowed[-1] if allowed else None


def _remove_all(path: str) -> None:
    for entry in os.scandir(path):
        if entry.is_dir():
            _remove(entry.path)
    _remove(path)


@dataclass(frozen=True, slots=True)
class DomainGroups:
    """The directory below which domains' groups are in one hierarchy, and the controllers they have."""

    version: int
    controllers: tuple[str, ...]
    directory: str

    @property
    def shares_cpus(self) -> bool:
        """Whether its groups share out CPU time: for domains of many processes only.

        Between groups sched_yield hands nothing over, so two domains that alternate on one CPU would have to sleep and
        wake each time: 5.8 µs a round trip with 10 µs of thought where yielding takes 3.2.
        """
        return CPU in self.controllers

    def enter(self, pid: int) -> None:
        """Make a group for the calling process, of this pid on the host, and move it there; OSError if refused.

        It has one thread: version 1 lets a thread move itself at once, where a whole process waits 5 to 10 ms.
        """
        path = f"{self.directory}/{pid}"
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - pathlib costs each domain a MiB of pages of its own
        write_file(f"{path}/{THREADS if self.version == 1 else PROCESSES}", "0")

    def bound(self, pid: int, bounds: dict[str, int]) -> None:
        """Set what the group may have: by controller, bytes of memory and number of processes."""
        for controller in self.controllers:
            name = BOUNDS.get((controller, self.version))
            if name is not None and controller in bounds:
                write_file(f"{self.directory}/{pid}/{name}", str(bounds[controller]))

    def remove(self, pid: int) -> None:
        """The process is gone. Nothing if it had no group, or has left something that still runs."""
        _remove(f"{self.directory}/{pid}")


def bound_memory(groups: Iterable[DomainGroups], pid: int, kib: int) -> str:
    """Hold a domain that runs to another bound, the reserve beside it; why the host refuses, or "".

    Version 1 refuses what is less than the group has. A domain that is in no group is held by nothing here.
    """
    for group in groups:
        try:
            group.bound(pid, {"memory": (kib + RESERVED_KIB) * 1024})
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"its control group: {error.strerror}"
    return ""


def _upwards(hierarchy: Hierarchy) -> Iterator[str]:
    mount, group = Path(hierarchy.mount), Path(hierarchy.directory)
    yield from (str(path) for path in (group, *group.parents) if path.is_relative_to(mount))


def _make(hierarchy: Hierarchy, base: str, name: str) -> DomainGroups | None:
    path = f"{base}/{name}"
    try:
        Path(path).mkdir()
    except OSError:
        return None
    controllers = [each for each in hierarchy.controllers if each in CONTROLLERS]
    if hierarchy.version != 1:
        controllers = [each for each in controllers if each != CPU]
        controllers = [each for each in controllers if _hand_down(base, each) and _hand_down(path, each)]
    for file, shares in CLUSTER_SHARES.items():
        if Path(f"{path}/{file}").exists():
            _try_write(f"{path}/{file}", str(min(shares * (os.cpu_count() or 1), SHARES_MAX[file])))
    if controllers:
        return DomainGroups(hierarchy.version, tuple(controllers), path)
    _remove(path)
    return None


def _hand_down(group: str, controller: str) -> bool:
    """Whether groups below this one have the controller."""
    return controller in _read(f"{group}/{SUBTREE}").split() or _try_write(f"{group}/{SUBTREE}", f"+{controller}")


def _remove(path: str) -> None:
    try:
        Path(path).rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
            raise


def _try_write(path: str, text: str) -> bool:
    try:
        write_file(path, text)
    except OSError:
        return False
    return True


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
