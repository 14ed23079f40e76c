"""Control groups: one for each domain's process, below one of its machine's, in every hierarchy that lets us.

Version 1 has a hierarchy for each controller or a few; a group of ours lies below the one that we are in. Version 2 has
one, in which a group with processes hands out no controllers: there ours lies below the topmost group that we may
change. See cgroups(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile

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
DISKS = "/sys/block"
NO_DISKS = "io_bps takes the controller blkio or io, and no group of ours has it"
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


def topmost(hierarchy: Hierarchy, may_make: Callable[[str], bool]) -> str | None:
    """The group below which groups of ours can be; in version 2 that may be far above the one that we are in.

    A group on the way that we may not change holds us: what is above it is out of its bounds, and so would be whom we
    move there, whoever lets us.
    """
    if hierarchy.version == 1:
        return hierarchy.directory if may_make(hierarchy.directory) else None
    allowed = list(takewhile(may_make, _upwards(hierarchy)))
    return allowed[-1] if allowed else None


def controllers_of(
    hierarchy: Hierarchy, may_make: Callable[[str], bool] = may_make_groups, read: Callable[[str], str] | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Those that groups of ours can have: in version 2 the group that we are in may have been handed fewer, or none."""
    base = topmost(hierarchy, may_make) if hierarchy.version != 1 else None
    return hierarchy.controllers if base is None else tuple((read or _read)(f"{base}/cgroup.controllers").split())


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
    return [each for each in found if set(controllers_of(each)) & set(CONTROLLERS)]


def _base(hierarchy: Hierarchy) -> str | None:
    """The group below which ours is, if there is one that we may change."""
    return topmost(hierarchy, may_make_groups)


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

    @property
    def bounds_disks(self) -> bool:
        """Whether its groups can be held to so many bytes of a disk in a second."""
        return "blkio" in self.controllers or "io" in self.controllers

    def enter(self, pid: int) -> None:
        """Make a group for the calling process, of this pid on the host, and move it there; OSError if refused.

        It has one thread: version 1 lets a thread move itself at once, where a whole process waits 5 to 10 ms.
        """
        path = f"{self.directory}/{pid}"
        os.makedirs(path, exist_ok=True)
        write_file(f"{path}/{THREADS if self.version == 1 else PROCESSES}", "0")

    def bound(self, pid: int, bounds: dict[str, int]) -> None:
        """Set what the group may have: by controller, bytes of memory and number of processes."""
        for controller in self.controllers:
            name = BOUNDS.get((controller, self.version))
            if name is not None and controller in bounds:
                write_file(f"{self.directory}/{pid}/{name}", str(bounds[controller]))

    def open_bounds(self, pid: int) -> dict[str, int]:
        """Descriptors of what `bound` writes to, by controller: for who sees no control groups when he knows his."""
        files = {each: BOUNDS[each, self.version] for each in self.controllers if (each, self.version) in BOUNDS}
        path = f"{self.directory}/{pid}"
        return {each: os.open(f"{path}/{name}", os.O_WRONLY | os.O_CLOEXEC) for each, name in files.items()}

    def bound_disk(self, pid: int, disk: str, bps: int) -> None:
        """Set how many bytes the group may read of a disk ("MAJ:MIN") in a second, and as many to write; 0: any."""
        for name, text in _disk_bounds(self.version, disk, bps):
            write_file(f"{self.directory}/{pid}/{name}", text)

    def lift_disks(self, pid: int) -> None:
        """Take those bounds away, if there are any."""
        for disk in self.bounded_disks(pid):
            with contextlib.suppress(OSError):  # the disk has gone, or the group
                self.bound_disk(pid, disk, 0)

    def bounded_disks(self, pid: int) -> list[str]:
        """Of which disks there are such bounds."""
        (name, _), *_ = _disk_bounds(self.version, "", 0)
        return [line.split()[0] for line in _read(f"{self.directory}/{pid}/{name}").splitlines()]

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


def bound_disks(groups: Iterable[DomainGroups], pid: int, bps: int) -> None:
    """Hold a domain to so many bytes a second of each disk that is there now; OSError saying why that cannot be."""
    ours = [group for group in groups if group.bounds_disks]
    if not ours:
        raise OSError(errno.ENODEV, NO_DISKS)
    try:
        disks = _disks()
    except OSError as error:
        raise OSError(error.errno, f"io_bps: {DISKS}: {error.strerror}") from error
    for disk in disks:
        for group in ours:
            try:
                group.bound_disk(pid, disk, bps)
            except OSError as error:
                if error.errno != errno.ENODEV:  # it has just gone
                    raise OSError(error.errno, f"io_bps of disk {disk}: {error.strerror}") from error


def bound_new_disks(groups: Iterable[DomainGroups], pid: int, bps: int) -> str:
    """Hold a domain that runs to as much of each disk of which it has no bound yet; why the host refuses, or "".

    None is set twice: version 1 begins to count anew with each. A domain that is in no group is held by nothing here.
    """
    try:
        disks = _disks()
        for group in groups:
            if group.bounds_disks:
                for disk in set(disks).difference(group.bounded_disks(pid)):
                    _bound_if_there(group, pid, disk, bps)
    except OSError as error:
        return f"{error.strerror}"
    return ""


def _bound_if_there(group: DomainGroups, pid: int, disk: str, bps: int) -> None:
    try:
        group.bound_disk(pid, disk, bps)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):  # the disk has just gone, or there is no group
            raise


def lift_disks(groups: Iterable[DomainGroups], pid: int) -> None:
    """For who was killed: what it has under way holds it in the kernel until it is done, at 4 MiB/s 15 s for 64 MiB."""
    for group in groups:
        if group.bounds_disks:
            group.lift_disks(pid)


def _disk_bounds(version: int, disk: str, bps: int) -> list[tuple[str, str]]:
    """Files of a group and what is written there; the first, read, says of which disks there are bounds."""
    if version == 1:
        return [(f"blkio.throttle.{way}_bps_device", f"{disk} {bps}") for way in ("read", "write")]
    most = bps or "max"
    return [("io.max", f"{disk} rbps={most} wbps={most}")]


def _disks() -> list[str]:
    """MAJ:MIN of each disk of the host, loop devices and the like too; partitions count for theirs."""
    found = []
    for name in os.listdir(DISKS):
        try:
            descriptor = os.open(f"{DISKS}/{name}/dev", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # one of several ways to a disk, and hidden behind it
        try:
            found.append(os.read(descriptor, 32).decode().strip())
        finally:
            os.close(descriptor)
    return found


def _upwards(hierarchy: Hierarchy) -> Iterator[str]:
    """The group that we are in, and those above it as far as the mount shows them."""
    below = hierarchy.directory.removeprefix(hierarchy.mount).rstrip("/")
    yield hierarchy.mount + below
    while below:
        below = below.rpartition("/")[0]
        yield hierarchy.mount + below


def _make(hierarchy: Hierarchy, base: str, name: str) -> DomainGroups | None:
    path = f"{base}/{name}"
    try:
        os.mkdir(path)
    except OSError:
        return None
    controllers = [each for each in controllers_of(hierarchy) if each in CONTROLLERS]
    if hierarchy.version != 1:
        controllers = [each for each in controllers if each != CPU]
        controllers = [each for each in controllers if _hand_down(base, each) and _hand_down(path, each)]
    for file, shares in CLUSTER_SHARES.items():
        if os.path.exists(f"{path}/{file}"):
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
        os.rmdir(path)
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
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
