"""A log of writes of which its driver domain has written anything: its whole records are read, and what they say of the
image is judged within it, or refused.

What must hold: both readers stop at the same place; nothing behind the last whole record counts; a log that lies about
the image is told so, and no power cut is made up from it.
"""

from __future__ import annotations

import os
import struct
import zlib

from hvd.toolstack.faults.durability import Cuts, judge, misplaced
from hvd.transport.write_log import MAGIC, LogKind, records, whole_length
from tests.fuzz.python.choices import Choices

RECORDS_MAX = 12
SECTORS = 16
CUTS = Cuts(exhaustive_max=2, samples=2)
SIZE = SECTORS * 512
BASE = bytes(SIZE)
NUMBERS = (0, 1, 511, 512, 4096, SIZE - 512, SIZE, 1 << 32, (1 << 63) - 1, (1 << 64) - 512, (1 << 64) - 1)
LOG = os.memfd_create("log", os.MFD_CLOEXEC)


def play(data: bytes) -> None:
    choices = Choices(data)
    log, at_ns = bytearray(), 0
    for _ in range(RECORDS_MAX):
        if not choices.more():
            break
        at_ns += choices.number(4) - (1 << 30) if choices.below(16) == 0 else choices.below(8)
        log += _record(choices, at_ns)
    if log and choices.flag():
        log[choices.number(2) % len(log)] ^= 1 << choices.below(8)
    os.ftruncate(LOG, 0)
    os.pwrite(LOG, log, 0)
    found = list(records(bytes(log)))
    assert sum(40 + len(record.content) for record in found) <= whole_length(LOG) <= len(log)
    assert all(len(record.content) in (0, record.length) for record in found)
    if misplaced(BASE, found) is not None:
        return
    judged = judge(BASE, found, [], seed=1, cuts=CUTS)
    assert judged.records == len(found) and judged.prefixes == len(found) + 1


def _record(choices: Choices, at_ns: int) -> bytes:
    if choices.below(16) == 0:
        return choices.take(choices.below(60))
    kind = choices.pick((*LogKind, 0, 5, choices.number(4)))
    offset = choices.pick(NUMBERS)
    content = choices.take(16).ljust(512, b"\0") * choices.below(3) if kind == LogKind.WRITE else b""
    length = len(content) if kind == LogKind.WRITE and choices.below(8) else choices.pick(NUMBERS)
    head = struct.pack("<IIqQQ", MAGIC, kind, at_ns, offset, length)
    return head + struct.pack("<II", zlib.crc32(head + content), 0) + content
