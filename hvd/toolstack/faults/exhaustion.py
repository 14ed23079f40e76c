"""Faults of running out: descriptors, private memory, shared memory of one domain, and the room on a file system."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hvd.toolstack.faults.fault import Aim, BadFault, Effect, Fault, Order, Parameter, Seen
from hvd.toolstack.faults.held import HeldFault, Note, Witness, held_fault
from hvd.toolstack.faults.signals import BROKER_UNDOES
from hvd.transport.faults import FaultKind

MIB = 1 << 20
EXTENTS = "extents"
TRIES = 16
"""To take what room there is, of which others take some at the same time."""


def soft_limit(name: str) -> Witness:
    """The kernel lets it have no more than it has, nor any process that it has started."""

    def look(effect: HeldFault) -> Seen:
        limit, others = effect.process.soft_limit(name), effect.process.soft_limits_below(name)
        text = f"/proc/{effect.process.pid}/limits: {name} {limit or 'gone'}"
        hit = [pid for pid, each in others.items() if _is_hit(effect, name, pid, each)]
        if others:
            text += f", and taken from {len(hit)} of the {len(others)} processes that it has started"
        all_hit = _is_hit(effect, name, effect.process.pid, limit) and len(hit) == len(others)
        return Seen(True if all_hit else None, text)

    return look


def note_limits(name: str) -> Note:
    """Before the fault."""

    def note(effect: HeldFault) -> None:
        limits = {effect.process.pid: effect.process.soft_limit(name), **effect.process.soft_limits_below(name)}
        effect.before = {str(pid): _number(limit) for pid, limit in limits.items()}

    return note


def _is_hit(effect: HeldFault, name: str, pid: int, limit: str) -> bool:
    """Whether it has less than it had, or as little as none has but by a fault: one before was perhaps not undone yet.

    Whoever was born since has what its parent had.
    """
    before = effect.before.get(str(pid), min(effect.before.values()))
    return bool(limit) and (_number(limit) < before or _number(limit) <= LEAST[name])


DATA, FILES = "Max data size", "Max open files"
LEAST = {DATA: 1, FILES: 128}
"""Bytes, and descriptors: no domain has so few of its own, and few programs set themselves such a limit."""


def _number(limit: str) -> float:
    return float("inf") if limit in ("", "unlimited") else float(limit)


def extents_are_out(effect: HeldFault) -> Seen:
    """The broker's tables: it has as many as it may have."""
    quotas = {row["domid"]: row["quotas"] for row in effect.order.cluster.quotas()}
    used, most = quotas.get(effect.victim.domid, {EXTENTS: (0, 1)})[EXTENTS]
    return Seen(True if used == most else None, f"hvd info --quotas: {used} of {most} extents")


class FullDisk:
    """A file without a name takes the room of a file system: the kernel gives it back with our last descriptor."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._file = -1
        self._path = order.cluster.run_dir

    def begin(self) -> None:
        """BadFault where the file system has more room than may be taken."""
        most, leave = self._order.parameters["most"] * MIB, self._order.parameters["leave"] * MIB
        room = _room(self._path)
        if room - leave > most:
            text = f"{self._path} has {room // MIB} MiB free; expected at most {most // MIB} (parameter most) to fill"
            raise BadFault(text)
        self._file = os.open(self._path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        for _ in range(TRIES):
            with suppress(OSError):  # others have taken some of it meanwhile, and the kernel gave none
                os.posix_fallocate(self._file, 0, max(1, _room(self._path) - leave))
                break

    def look(self) -> Seen:
        room = _room(self._path)
        full = room <= (self._order.parameters["leave"] + 1) * MIB
        return Seen(True if full else None, f"statvfs {self._path}: {room // MIB} MiB free")

    def undo(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _room(path: Path) -> int:
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def _full_disk(order: Order) -> list[Effect]:
    return [FullDisk(order)]


EXHAUSTION_FAULTS = (
    Fault(
        str(FaultKind.FILL_FDS), "none of its processes can open a descriptor", "/proc/PID/limits",
        "what needs one is refused in the victim, which may die of it and is started again; nobody else notices",
        held_fault(FaultKind.FILL_FDS, soft_limit(FILES), note_limits(FILES)), for_s=2.0, undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.OOM), "none of its processes gets private memory", "/proc/PID/limits",
        "its program meets MemoryError, may die of it and is started again; nobody else notices",
        held_fault(FaultKind.OOM, soft_limit(DATA), note_limits(DATA)), for_s=2.0, undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.FILL_SHM), "it has all the extents of shared memory that a domain may have",
        "the broker's quotas", "it can grant no further page; rings and pages that are there go on",
        held_fault(FaultKind.FILL_SHM, extents_are_out), for_s=2.0, undone_by=BROKER_UNDOES,
    ),
    Fault(
        "fill-disk", "the file system of the run directory is full", "statvfs",
        "logs stop growing; guests and their disks elsewhere go on", _full_disk, aim=Aim.MACHINE, for_s=2.0,
        parameters=(
            Parameter("leave", "MiB that stay free", 0, 0, 1 << 20),
            Parameter("most", "MiB that may be taken at most", 4096, 1, 1 << 20),
        ),
        undone_by="the kernel, with the injector's last descriptor",
    ),
)  # fmt: skip
