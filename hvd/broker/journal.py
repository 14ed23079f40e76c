"""The broker's memory across its own death: a snapshot and every command since, in a memfd that the machine holds.

Page 0 is a header of u64 words: 0 magic and version, 1 where the valid records end, 8 whether a hypercall is being
carried out (the *intent*), 9 its sequence number; its session stands behind them. From page 1 on come records, each u32
length, u32 crc32, payload; the first is the snapshot. A record counts once word 1 includes it, and that word is written
in one store: whenever its writer dies, a record is there as a whole or not at all. It survives processes, not the host:
no fsync.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from hvd.transport.records import dataclass

MAGIC = 0x6A647668  # "hvdj"
VERSION = 2
IDENTITY = MAGIC | VERSION << 32
IDENTITY_WORD, END_WORD, INTENT_OPEN_WORD, INTENT_SEQUENCE_WORD = 0, 1, 8, 9
INTENT_SESSION_AT, SESSION_BYTES_MAX = 80, 64
RECORD = struct.Struct("<II")
RECORDS_AT = 4096
CAPACITY = 8 << 20


class JournalFull(Exception):
    """No room for a record: take a snapshot into a new journal, or `make_room`."""


class JournalCorrupt(Exception):
    """What a journal holds is not what was written: the tables cannot be rebuilt, the machine has to be rebooted."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A hypercall that was being carried out: whose, and its sequence number."""

    session: str
    sequence: int


class Journal:
    """One journal file, mapped. The descriptor stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._attach(mmap.mmap(descriptor, 0))
        if self._words[IDENTITY_WORD] != IDENTITY:
            found = self._words[IDENTITY_WORD]
            self.close()
            raise JournalCorrupt(f"not a journal of version {VERSION}: it begins with {found:#x}")
        self._end = self._words[END_WORD]
        if self._end > len(self._map):
            self.close()
            raise JournalCorrupt(f"the journal ends at {self._end}, behind the end of its file")

    def _attach(self, mapped: mmap.mmap) -> None:
        self._map = mapped
        self._header = memoryview(mapped)[:RECORDS_AT]
        self._words = self._header.cast("Q")

    @classmethod
    def create(cls, snapshot: bytes, capacity: int = CAPACITY) -> Journal:
        """A new journal that starts with this snapshot, and has room for `capacity` bytes of records beside it.

        OSError where the host has none for it.
        """
        writer = JournalWriter()
        try:
            writer.put([snapshot])
            return writer.finished(capacity)
        finally:
            writer.close()

    @property
    def room(self) -> int:
        """Bytes behind the last record."""
        return len(self._map) - self._end

    def append(self, payload: bytes) -> None:
        """Add a record; it counts when this returns. JournalFull leaves everything as it was."""
        start = self._end + RECORD.size
        end = start + len(payload)
        if end > len(self._map):
            raise JournalFull(f"{len(payload)} bytes do not fit behind {self._end}")
        RECORD.pack_into(self._map, self._end, len(payload), zlib.crc32(payload, MAGIC))
        self._map[start:end] = payload
        self._words[END_WORD] = self._end = end

    def make_room(self, capacity: int = CAPACITY) -> None:
        """Have room for so many bytes of records more. OSError: the host has none; everything is as it was then."""
        os.ftruncate(self.descriptor, len(self._map) + capacity)
        larger = mmap.mmap(self.descriptor, 0)
        self.close()
        self._attach(larger)

    def records(self) -> Iterator[bytes]:
        """Every record in order, the snapshot first; JournalCorrupt at one that is not what was written."""
        at = RECORDS_AT
        while at < self._end:
            if at + RECORD.size > self._end:
                raise JournalCorrupt(f"the journal ends at {self._end}, in the middle of the record at {at}")
            length, checksum = RECORD.unpack_from(self._map, at)
            start, at = at + RECORD.size, at + RECORD.size + length
            payload = self._map[start:at]
            if at > self._end or _checksum(payload) != checksum:
                raise JournalCorrupt(f"the record at {start - RECORD.size} of the journal fails its checksum")
            yield payload
        if at == RECORDS_AT:
            raise JournalCorrupt("the journal holds no snapshot")

    def open_intent(self, session: str, sequence: int) -> None:
        """Note that this hypercall is being carried out."""
        self._map[INTENT_SESSION_AT : INTENT_SESSION_AT + SESSION_BYTES_MAX] = _padded(session)
        self._words[INTENT_SEQUENCE_WORD] = sequence
        self._words[INTENT_OPEN_WORD] = 1

    def close_intent(self) -> None:
        """It was carried out, or refused."""
        self._words[INTENT_OPEN_WORD] = 0

    def intent(self) -> Intent | None:
        """The hypercall that a dead broker left open, if it did."""
        if not self._words[INTENT_OPEN_WORD]:
            return None
        session = self._map[INTENT_SESSION_AT : INTENT_SESSION_AT + SESSION_BYTES_MAX]
        return Intent(session.rstrip(b"\0").decode(errors="replace"), self._words[INTENT_SEQUENCE_WORD])

    def close(self) -> None:
        """Unmap it."""
        self._words.release()
        self._header.release()
        self._map.close()


class Stretch(NamedTuple):
    """Where some records stand in a journal's file."""

    start: int
    end: int


class JournalWriter:
    """A journal that is made a little at a time: there is none before it is `finished`. Close it in any case."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("hvd-journal", os.MFD_CLOEXEC)
        self.end = RECORDS_AT

    def put(self, records: list[bytes]) -> None:
        """These behind all others."""
        self._write(b"".join(RECORD.pack(len(payload), _checksum(payload)) + payload for payload in records))

    def copy(self, journal: Journal, stretch: Stretch) -> None:
        """The bytes that stand there in another journal: whole records, when all of them have been copied."""
        self._write(os.pread(journal.descriptor, stretch.end - stretch.start, stretch.start))

    def finished(self, capacity: int = CAPACITY) -> Journal:
        """The journal, with room for so many bytes of records more."""
        os.ftruncate(self._descriptor, self.end + capacity)
        os.pwrite(self._descriptor, struct.pack("<QQ", IDENTITY, self.end), 0)
        journal, self._descriptor = Journal(self._descriptor), -1
        return journal

    def close(self) -> None:
        """Nothing if it is finished."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        """All of it, or OSError: a host that has no memory left writes some."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self.end)
            self.end += written
            rest = rest[written:]


def _checksum(payload: bytes) -> int:
    """Begun with the magic, so that zeros are no record."""
    return zlib.crc32(payload, MAGIC)


def _padded(session: str) -> bytes:
    return session.encode()[:SESSION_BYTES_MAX].ljust(SESSION_BYTES_MAX, b"\0")
