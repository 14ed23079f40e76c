"""The history of a workload: each operation under its id, as invoked, then as ok or failed, by whoever did it.

An operation is recorded before it is asked for and again when its answer is there, so that a reader outside knows of
everything that may have been done. One without an answer has an unknown fate, which is not ok.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from hvd.transport.records import dataclass

_RECORD = struct.Struct("<BBxxIQQq16s")
RECORD_SIZE: Final = _RECORD.size
INCARNATION_SHIFT: Final = 40
"""Ids of different incarnations never meet."""
Record = tuple[int, int, int, int, int, int, bytes]
"""An event as it is packed: phase, kind, count, id, place, at_ns, digest. Whoever reads millions takes these."""


class Phase(IntEnum):
    """What is known of an operation from here on."""

    INVOKED = 1
    """It may be done from now on, or never."""
    OK = 2
    """It is done: its effect may never be missing."""
    FAILED = 3
    """It ended with an error: nothing is promised."""
    WRONG = 4
    """It was answered with something that nobody wrote, or that was overwritten before."""


class Kind(IntEnum):
    """What an operation does, and what its `place` and `count` are."""

    WRITE = 1
    """`count` blocks from block `place` on; `digest` of all of them."""
    FLUSH = 2
    """Every write that was ok before it was invoked is durable when it is ok."""
    READ = 3
    """`count` blocks from block `place` on hold what they have to."""
    LINE = 4
    """A line of `count` bytes on the console."""
    TRANSFER = 5
    """A XenStore transaction that moves `count` from account `place >> 32` to account `place & 0xffffffff`."""
    CALL = 6
    """What a program of your own does; `place` and `count` are its own business."""


@dataclass(frozen=True, slots=True)
class Event:
    """One record: `at_ns` is CLOCK_MONOTONIC."""

    phase: Phase
    kind: Kind
    id: int
    place: int = 0
    count: int = 0
    digest: bytes = bytes(16)
    at_ns: int = 0


class HistoryWriter:
    """Appends to a history that earlier incarnations may have begun."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._has_recorded = False

    def record(self, event: Event) -> None:
        """The event as of now, whatever its `at_ns`."""
        if not self._has_recorded:
            self._has_recorded = True
            self._cut_off_torn()
        os.write(self._file, pack(event, time.monotonic_ns()))

    def _cut_off_torn(self) -> None:
        """The kernel writes page by page, and whoever is killed in between leaves a half: all behind it would be askew.

        Only now, as a spare opens the history while another process writes it.
        """
        size = os.fstat(self._file).st_size
        if torn := size % RECORD_SIZE:
            os.ftruncate(self._file, size - torn)


def pack(event: Event, at_ns: int) -> bytes:
    """The event as a record of that moment."""
    return _RECORD.pack(event.phase, event.kind, event.count, event.id, event.place, at_ns, event.digest)


def records(data: bytes) -> Iterator[Record]:
    """Every whole record; a torn last one, of a writer that was killed, is left out."""
    return _RECORD.iter_unpack(memoryview(data)[: len(data) // RECORD_SIZE * RECORD_SIZE])


def unpack_all(data: bytes) -> Iterator[Event]:
    """The same as events; ValueError at one whose phase or kind is none."""
    return map(event_of, records(data))


def event_of(record: Record) -> Event:
    """ValueError when its phase or kind is none."""
    phase, kind, count, id_, place, at_ns, digest = record
    return Event(Phase(phase), Kind(kind), id_, place, count, digest, at_ns)
