"""What a disk exerciser writes: blocks that say whose they are and how old, for a checker outside.

A block is 4 KiB and says who it is: writer's seed, sequence number, its own place, then filler that follows from
these. So anyone can tell whether a block on an image is whole, whose it is, and how old.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

BLOCK_SIZE: Final = 4096
SECTORS_PER_BLOCK: Final = 8
MAGIC: Final = b"hvdblock"
_HEADER = struct.Struct("<8sQQQ")
_STAMP = struct.Struct("<QQQQ")
_PLACES: Final = 1 << 64


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
    """16 bytes that stand for what was written.

    Of one operation's content its stamp is hashed, after a look at every byte, since all of them follow from it; of
    anything else every byte is hashed. Either way other data has another digest.
    """
    blocks, rest = divmod(len(data), BLOCK_SIZE)
    if blocks and not rest:
        magic, seed, sequence, block = _HEADER.unpack_from(data)
        if magic == MAGIC and block <= _PLACES - blocks and data == content(seed, sequence, block, blocks):
            return content_digest(seed, sequence, block, blocks)
    return hashlib.blake2b(data, digest_size=16).digest()


def content_digest(seed: int, sequence: int, block: int, blocks: int) -> bytes:
    """The digest of `content(seed, sequence, block, blocks)`, which is not made for it."""
    stamp = _STAMP.pack(seed, sequence, block, blocks)
    return hashlib.blake2b(stamp, digest_size=16, person=b"stamp").digest()
