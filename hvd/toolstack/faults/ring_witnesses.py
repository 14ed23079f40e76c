"""Who tells that a ring of a domain's was found broken, by kind of ring: its ends say so where each says such things.

A witness is made before the fault, and asked afterwards what is new.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hvd.toolstack.cluster import Cluster, Domain
from hvd.transport import messages as m
from hvd.transport.faults import RingKind
from hvd.transport.hypercalls import HypercallError

BROKEN = "closed by the peer's fault"
STORE_CLOSED = "its connection to XenStore is closed"


class RingWitness(Protocol):
    """The ends of one domain's rings of one kind."""

    def found(self) -> list[str]:
        """What an end has said of a broken ring since this was made: where, and what."""


def witness_of(kind: RingKind, cluster: Cluster, victim: Domain) -> RingWitness:
    """Made before the ring is broken."""
    match kind:
        case RingKind.DEVICE:
            return DeviceEnds(cluster, victim)
        case RingKind.CONSOLE:
            return ConsoleEnds(cluster, victim)
        case RingKind.STORE:
            return StoreEnd(cluster, victim)


class LogTail:
    """A log that is rotated (transport/log_file.py), from its end on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._size = _identity(path)

    def read(self) -> str:
        """What was appended since this was made, as far as a rotation has left it."""
        file, _ = _identity(self._path)
        old = Path(f"{self._path}.1")
        parts = [_content(self._path, self._size if file == self._file else 0)]
        if file != self._file:
            parts.insert(0, _content(old, self._size if _identity(old)[0] == self._file else 0))
        return b"".join(parts).decode(errors="replace")


def _identity(path: Path) -> tuple[int, int]:
    """(which file it is, its size); of one that there is not zeros."""
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size
    return 0, 0


def _content(path: Path, start: int) -> bytes:
    with suppress(OSError), path.open("rb") as log:
        log.seek(start)
        return log.read()
    return b""


class DeviceEnds:
    """Both ends of each device write `error` into their directories in XenStore."""

    def __init__(self, cluster: Cluster, victim: Domain) -> None:
        self._cluster, self._victim = cluster, victim
        self._before = self._errors()

    def found(self) -> list[str]:
        new = {path: text for path, text in self._errors().items() if text and text != self._before.get(path)}
        return [f"{path}: {text}" for path, text in new.items()]

    def _errors(self) -> dict[str, str]:
        """By path."""
        infos = self._cluster.infos()
        domid = self._victim.domid
        backends = {info.name: info.domid for info in infos.values()}
        found = {}
        for device in infos[domid].devices if domid in infos else ():
            kind, devid, backend = device["kind"], device["devid"], backends.get(device["backend"], 0)
            for path in (
                f"/local/domain/{domid}/device/{kind}/{devid}/error",
                f"/local/domain/{backend}/backend/{kind}/{domid}/{devid}/error",
            ):
                found[path] = self._read(path)
        return found

    def _read(self, path: str) -> str:
        try:
            return bytes(self._cluster.call(m.StoreRead(0, path))).decode(errors="replace")
        except HypercallError:
            return ""


class ConsoleEnds:
    """Domain 0 tells the hypervisor's console, the domain its own log."""

    def __init__(self, cluster: Cluster, victim: Domain) -> None:
        self._cluster = cluster
        self._prefix = f"console of domain {victim.domid}: "
        self._log = LogTail(victim.log_path())
        self._before = Counter(self._told_by_dom0())

    def found(self) -> list[str]:
        new = [f"dmesg: {line}" for line in Counter(self._told_by_dom0()) - self._before]
        return new or [f"its log: {line}" for line in self._log.read().splitlines() if BROKEN in line]

    def _told_by_dom0(self) -> list[str]:
        return [line for line in self._cluster.dmesg() if self._prefix in line and BROKEN in line]


class StoreEnd:
    """XenStore's end tells broker.log, one object a line."""

    def __init__(self, cluster: Cluster, victim: Domain) -> None:
        self._domid = victim.domid
        self._log = LogTail(cluster.run_dir / "log" / "broker.log")

    def found(self) -> list[str]:
        return [f"broker.log: {text}" for line in self._log.read().splitlines() if (text := self._told(line))]

    def _told(self, line: str) -> str:
        """What a line says of it; empty: nothing, or it is not written to its end yet."""
        with suppress(ValueError, AttributeError):
            told = json.loads(line)
            text = str(told.get("event", ""))
            return text if told.get("domid") == self._domid and text.startswith(STORE_CLOSED) else ""
        return ""
