"""What a disk exerciser was acknowledged, as records in a file, and what its blocks hold: shared with the checker
outside.

A block is 4 KiB and says who it is: writer's seed, sequence number, its own place, then filler that follows from
these. So anyone can tell whether a block on an image is whole, whose it is, and how old. Each acknowledged operation
appends one record.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

BLOCK_SIZE: Final = 4096
SECTORS_PER_BLOCK: Final = 8
MAGIC: Final = b"hvdblock"
_HEADER = struct.Struct("<8sQQQ")
_RECORD = struct.Struct("<IIQQQ16s")
RECORD_SIZE: Final = _RECORD.size


class Kind(IntEnum):
    """What was acknowledged."""

    WRITE = 1
    """The backend has it."""
    FLUSH = 2
    """Every write acknowledged before is durable."""
    READ = 3
    """A read came back and held what it had to."""
    FAILED = 4
    """The operation completed with an error: nothing is promised."""


@dataclass(frozen=True, slots=True)
class Ack:
    """One record: `at_ns` is CLOCK_MONOTONIC, `digest` the hash of all that was written."""

    kind: Kind
    sequence: int
    block: int
    blocks: int
    at_ns: int
    digest: bytes


def block_content(seed: int, sequence: int, block: int) -> bytes:
    """The 4,096 bytes that operation `sequence` puts at `block`."""
    header = _HEADER.pack(MAGIC, seed, sequence, block)
    filler = hashlib.blake2b(header).digest()
    return (header + filler * 64)[:BLOCK_SIZE]


def content(seed: int, sequence: int, block: int, blocks: int) -> bytes:
    """What an operation over several blocks writes."""
    return b"".join(block_content(seed, sequence, block + i) for i in range(blocks))


def parse_block(data: bytes) -> tuple[int, int, int] | None:
    """(seed, sequence, block) of a whole block; None if it is torn, empty or somebody else's."""
    magic, seed, sequence, block = _HEADER.unpack_from(data)
    if magic != MAGIC or data != block_content(seed, sequence, block):
        return None
    return seed, sequence, block


def digest(data: bytes) -> bytes:
    """16 bytes that stand for what was written."""
    return hashlib.blake2b(data, digest_size=16).digest()


def pack(ack: Ack) -> bytes:
    return _RECORD.pack(ack.kind, ack.blocks, ack.sequence, ack.block, ack.at_ns, ack.digest)


def unpack_all(data: bytes) -> Iterator[Ack]:
    """Every whole record; a torn last one, of a writer that was killed, is left out."""
    for at in range(0, len(data) - RECORD_SIZE + 1, RECORD_SIZE):
        kind, blocks, sequence, block, at_ns, hashed = _RECORD.unpack_from(data, at)
        yield Ack(Kind(kind), sequence, block, blocks, at_ns, hashed)
