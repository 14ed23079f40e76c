"""Counts what a cluster holds, by the broker's tables and by the kernel: after a fault it is what it was before."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hvd.toolstack.cluster import Cluster, DomainInfo
from hvd.toolstack.cluster.errors import NotReached

TABLES = ("domains", "ports", "granted_pages", "mappings", "extents")
"""Of the hypervisor's tables, all domains together."""
LOOKS, AGREEING, BETWEEN_LOOKS_S = 400, 6, 0.05
LASTING = ("hvd-broker", "hvd-zygote")
"""The machine's children whose descriptors are counted: domains' come and go with what they do."""
STANDBY = "hvd:standby"
"""Processes that have no domain yet: they are made anew when there is time for it."""
PIDFD = "anon_inode:[pidfd]"
JOURNAL, JOURNALS = "/memfd:hvd-journal", 2
"""There is one, and a second while a broker writes what is to take its place: beside load it nearly always does."""
KEPT = ("mnt:", PIDFD)
"""What a zygote keeps of the domains that it has made (domains/mounts.py); the next one has nothing of theirs."""
NUMBERED = re.compile(r":\[\d+\]$|(?<=^/memfd:hvd-extent)-\d+$")
"""In what a descriptor is: which one of many."""
ACCOUNT = re.compile(r"/proc/\d+/stat")
PROC = Path("/proc")
CONNECTED = "03"
ENDPOINT = re.compile(r"/domains/(\d+)\.(\d+)[./]")
"""In the path that a domain's socket was bound at: its domid and incarnation (broker/endpoints.py)."""


@dataclass(frozen=True, slots=True)
class Census:
    """Counts by name; those of the kernel name the process they are of."""

    counts: dict[str, int]

    def difference(self, before: Census) -> dict[str, tuple[int, int]]:
        """(before, now) of each count that has changed."""
        names = dict.fromkeys((*before.counts, *self.counts))
        pairs = {name: (before.counts.get(name, 0), self.counts.get(name, 0)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def census(cluster: Cluster) -> Census:
    """What there is now. Not one moment: ask again while something goes on."""
    info = cluster.info()
    counts = {name: info[name] for name in TABLES} | {"made ahead": int(info["made_ahead"])}
    for row in cluster.quotas():
        counts["store nodes"] = counts.get("store nodes", 0) + row["quotas"]["store nodes"][0]
        counts["watches"] = counts.get("watches", 0) + row["quotas"]["watches"][0]
    machine = cluster.connection.machine_pid
    family = _descendants(machine)
    theirs = _connections(cluster.infos().values(), family)
    counts["processes"] = sum(_name(pid) != STANDBY for pid in family)
    named = {name.removeprefix("hvd-"): pid for pid in family if (name := _name(pid)) in LASTING}
    for name, pid in {"machine": machine, **named}.items():
        for kind, number in _descriptors(pid, KEPT if name == "zygote" else (JOURNAL,), theirs).items():
            counts[f"descriptors of the {name}: {kind}"] = number
    shared = {memory for pid in (machine, *family) for memory in _shared_memory(pid)}
    for kind, number in Counter(kind for kind, *_ in shared).items():
        counts[f"shared memory objects: {kind}"] = number if kind != JOURNAL else max(number, JOURNALS)
    return Census(counts)


def settled(cluster: Cluster, meanwhile: Callable[[], None] = lambda: None) -> Census:
    """What there is when the machine has caught up with what it does for later: so many looks in a row agree.

    NotReached where that does not come, with what last changed.
    """
    before, agreed = census(cluster), 0
    changed: dict[str, tuple[int, int]] = {}
    for _ in range(LOOKS):
        time.sleep(BETWEEN_LOOKS_S)
        meanwhile()
        now = census(cluster)
        changed = now.difference(before) or changed
        agreed = agreed + 1 if now.counts["made ahead"] and now.counts == before.counts else 0
        if agreed == AGREEING:
            return now
        before = now
    told = ", ".join(f"{name} {was} -> {is_now}" for name, (was, is_now) in changed.items()) or "what is made ahead"
    raise NotReached(f"the cluster has not come to rest in {LOOKS} looks at it; what last changed: {told}")


def _descendants(pid: int) -> list[int]:
    """All that it has forked, and what those have."""
    found = _children(pid)
    for child in found:
        found.extend(_children(child))
    return found


def _children(pid: int) -> list[int]:
    try:
        lists = [(thread / "children").read_text() for thread in (PROC / str(pid) / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has gone meanwhile
    return [int(child) for each in lists for child in each.split()]


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _connections(infos: Iterable[DomainInfo], family: Iterable[int]) -> set[str]:
    """Those that domains who live, and spares, have made to their endpoints, as links: whether one has any is what it
    does. A spare has one that it does not make again with the next broker, before it has something to ask.

    A domain connects with the first question that it does not ask over its upcall socket, and what it asks so is a
    matter of time. What is connected to an endpoint of the dead is not among them: that would be a leak.
    The kernel lists the broker's end of a connection in the network namespace of whoever has connected.
    """
    living = set()
    for info in infos:
        if info.pid is not None:
            living |= {(info.domid, info.incarnation + ahead) for ahead in range(2 if info.spare else 1)}
    found = set()
    for pid in ("self", *family):
        try:
            _, *lines = (PROC / str(pid) / "net/unix").read_text().splitlines()
        except OSError:
            continue  # it has gone meanwhile
        for line in lines:
            state, inode, *path = line.split(maxsplit=7)[5:]
            whose = ENDPOINT.search(path[0]) if state == CONNECTED and path else None
            if whose and (int(whose[1]), int(whose[2])) in living:
                found.add(f"socket:[{inode}]")
    return found


def _descriptors(pid: int, without: tuple[str, ...], theirs: Container[str]) -> Counter[str]:
    """How many a process has of each kind, but for these and connections that are theirs; none for one that has gone.

    An end of a pipe counts once: a broker holds both ends of each channel's pipes, and opens one once more when it
    first rings that bell (held.py), which says who was rung and nothing else. What tells of a process that lives does
    not: the machine watches as many threads of one as it has when it is ready (machine/exits.py), and a broker has
    the account of one open that is late with a beat (process_evidence.py).
    """
    found: Counter[str] = Counter()
    ends = set()
    for link, entry in _links(pid):
        if link.startswith("pipe:"):
            with suppress(FileNotFoundError):
                ends.add((link, entry.lstat().st_mode))
        elif not (link.startswith(without) or link in theirs or _tells_of_who_lives(link, entry)):
            found[_kind(link)] += 1
    if ends:
        found["pipe"] = len(ends)
    return found


def _kind(link: str) -> str:
    """What a descriptor is, of whatever number: its name stands there for people, a file's whole path."""
    return NUMBERED.sub("", link.removesuffix(" (deleted)"))


def _tells_of_who_lives(link: str, entry: Path) -> bool:
    """A pidfd, or an open /proc/PID/stat, of a process that has not been reaped."""
    return _is_of_who_lives(entry) if link == PIDFD else bool(ACCOUNT.fullmatch(link)) and Path(link).exists()


def _is_of_who_lives(pidfd: Path) -> bool:
    """Whether whom this descriptor names has not been reaped (proc_pid_fdinfo(5))."""
    with suppress(FileNotFoundError, ProcessLookupError):
        told = (pidfd.parent.parent / "fdinfo" / pidfd.name).read_text()
        return any(line.startswith("Pid:") and int(line.split()[1]) > 0 for line in told.splitlines())
    return False


def _shared_memory(pid: int) -> set[tuple[str, int, int]]:
    """Memfds that a process holds: the kind, device and inode."""
    found = set()
    with suppress(PermissionError):  # the machine holds its extents too
        for link, entry in _links(pid):
            if link.startswith("/memfd:"):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    found.add((_kind(link), status.st_dev, status.st_ino))
    return found


def _links(pid: int) -> Iterator[tuple[str, Path]]:
    """What each descriptor of a process is, and where that stands; those that are closed meanwhile are left out.

    PermissionError: it is a domain whose user namespace is its own, and we are not root.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield str(entry.readlink()), entry

