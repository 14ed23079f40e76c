"""The log of what a block backend did to its image, as transport/native/write_log.hpp appends it: kinds and records.

The backend that writes it and the judge outside, who makes the image again from a prefix of it, both read it here.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from hvd.transport.records import dataclass

MAGIC: Final = 0x4C576468
_HEADER = struct.Struct("<IIqQQII")
_CHECKED: Final = 32
"""Bytes of the header that the checksum covers."""


class LogKind(IntEnum):
    """What a record says was done, or was about to be."""

    WRITE = 1
    """These bytes go to the image now: until the next SYNC a power cut may drop them, or any of their sectors."""
    DISCARD = 2
    """This range is made a hole now; as a write of zeros."""
    SYNC = 3
    """fdatasync has returned: everything above is on the medium."""
    FLUSHED = 4
    """A FLUSH is answered with OKAY now: everything that was answered before it was asked for must survive."""


_KINDS: Final = frozenset(LogKind)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record: `offset` and `length` in bytes, `content` of a WRITE, `at_ns` on CLOCK_MONOTONIC."""

    kind: LogKind
    offset: int
    length: int
    at_ns: int
    content: bytes = b""


def records(data: bytes) -> Iterator[LogRecord]:
    """Every whole record in order; the first that is torn ends the log, as its writer was killed there.

    So does one of no kind that there is: whose log it is may write anything into it.
    """
    at = 0
    while (record := _record_at(data, at)) is not None:
        yield record
        at += _HEADER.size + len(record.content)


def whole_length(descriptor: int) -> int:
    """Where the last whole record of an open log ends: what stands behind it, a successor cuts off."""
    size = os.fstat(descriptor).st_size
    if size < _HEADER.size:
        return 0
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as data:
        at = last = 0
        while (end := _end_of(data, at)) is not None:  # contents are skipped: only the last one can be torn
            last, at = at, end
        return at if _record_at(data, last) is not None else last


def _end_of(data: bytes | mmap.mmap, at: int) -> int | None:
    """Where the record at `at` ends; None when it does not fit, or is none."""
    if at + _HEADER.size > len(data):
        return None
    magic, kind, _, _, length, _, _ = _HEADER.unpack_from(data, at)
    end: int = at + _HEADER.size + (length if kind == LogKind.WRITE else 0)
    return end if magic == MAGIC and kind in _KINDS and end <= len(data) else None


def _record_at(data: bytes | mmap.mmap, at: int) -> LogRecord | None:
    end = _end_of(data, at)
    if end is None:
        return None
    _, kind, at_ns, offset, length, checksum, _ = _HEADER.unpack_from(data, at)
    content = bytes(data[at + _HEADER.size : end])
    if zlib.crc32(content, zlib.crc32(data[at : at + _CHECKED])) != checksum:
        return None
    return LogRecord(LogKind(kind), offset, length, at_ns, content)
