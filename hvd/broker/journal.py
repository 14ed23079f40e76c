"""The broker's memory across its own death: a snapshot and every command since, in a memfd that the machine holds.

Page 0 is a header: magic, version, bytes of valid records, and the *intent*: which session's hypercall is being carried
out, and how often it was found open by a new broker. After it come records, each u32 length, u32 crc32, payload; the
first is the snapshot. A record counts once the header's length includes it, and a torn one is left out. It survives
processes, not the host: no fsync.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = 0x6A647668  # "hvdj"
VERSION = 1
HEADER = struct.Struct("<IIQ")
INTENT = struct.Struct("<QI64s")
INTENT_AT = 64
RECORD = struct.Struct("<II")
RECORDS_AT = 4096
CAPACITY = 8 << 20


class JournalFull(Exception):
    """No room for a record: take a snapshot into a new journal."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A hypercall that was being carried out: whose, its sequence number, and by how many brokers so far."""

    session: str
    sequence: int
    attempts: int


class Journal:
    """One journal file, mapped."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        magic, version, self._end = HEADER.unpack_from(self._map)
        if (magic, version) != (MAGIC, VERSION):
            raise ValueError(f"not a journal of version {VERSION}: magic {magic:#x}, version {version}")

    @classmethod
    def create(cls, snapshot: bytes, capacity: int = CAPACITY) -> Journal:
        """A new journal that starts with this snapshot, and has room for commands whatever the snapshot's size."""
        descriptor = os.memfd_create("hvd-journal", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, RECORDS_AT + len(snapshot) + capacity)
        os.pwrite(descriptor, HEADER.pack(MAGIC, VERSION, RECORDS_AT), 0)
        journal = cls(descriptor)
        journal.append(snapshot)
        return journal

    def append(self, payload: bytes) -> None:
        """Add a record; it counts when this returns. JournalFull leaves everything as it was."""
        start = self._end + RECORD.size
        end = start + len(payload)
        if end > len(self._map):
            raise JournalFull(f"{len(payload)} bytes do not fit behind {self._end}")
        RECORD.pack_into(self._map, self._end, len(payload), zlib.crc32(payload))
        self._map[start:end] = payload
        self._end = end
        HEADER.pack_into(self._map, 0, MAGIC, VERSION, end)

    def records(self) -> Iterator[bytes]:
        """Every whole record in order, the snapshot first; stops at the first that is torn."""
        at = RECORDS_AT
        while at + RECORD.size <= self._end:
            length, checksum = RECORD.unpack_from(self._map, at)
            payload = self._map[at + RECORD.size : at + RECORD.size + length]
            if at + RECORD.size + length > self._end or zlib.crc32(payload) != checksum:
                return
            yield payload
            at += RECORD.size + length

    def open_intent(self, session: str, sequence: int, attempts: int = 1) -> None:
        """Note that this hypercall is being carried out."""
        INTENT.pack_into(self._map, INTENT_AT, sequence, attempts, session.encode()[:64])

    def close_intent(self) -> None:
        """It was carried out, or refused."""
        INTENT.pack_into(self._map, INTENT_AT, 0, 0, b"")

    def intent(self) -> Intent | None:
        """The hypercall a dead broker left open, if it did."""
        sequence, attempts, session = INTENT.unpack_from(self._map, INTENT_AT)
        return Intent(session.rstrip(b"\0").decode(errors="replace"), sequence, attempts) if attempts else None

    def close(self) -> None:
        self._map.close()
        os.close(self.descriptor)
