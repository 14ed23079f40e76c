"""The block device: Xen's blkif (public/io/blkif.h, 64-bit layout), what both ends need of it.

A ring of 112-byte requests and 16-byte responses in one or more pages; one event channel. A request names sectors of
512 bytes and the granted pages their data lies in: up to 11 segments in the slot itself, or up to 8 pages of segments
(INDIRECT). Responses carry the request's id and may come in any order.

Backend keys    feature-flush-cache feature-discard feature-persistent feature-max-indirect-segments
max-ring-page-order sectors
                sector-size physical-sector-size info (4: read-only) mode params
Frontend keys   ring-ref | ring-page-order num-ring-pages ring-ref%u, event-channel, protocol, feature-persistent

hvd beyond Xen: a frontend outlives its backend. It keeps every request until it is answered, makes the ring empty for
the next backend (see domains/xenbus.py) and issues again, in the order of their ids, what is open. An id is never
used twice, so a late or second answer is recognised and dropped.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

SECTOR_SIZE: Final = 512
SECTORS_PER_PAGE: Final = 8
REQUEST_SIZE: Final = 112
RESPONSE_SIZE: Final = 16
REQUEST_ID_OFFSET: Final = 8
"""Of every operation's request; eight bytes."""
RESPONSE_ID_OFFSET: Final = 0
DIRECT_SEGMENTS_MAX: Final = 11
INDIRECT_SEGMENTS_MAX: Final = 256
SEGMENTS_PER_PAGE: Final = 512
RING_PAGE_ORDER_MAX: Final = 4
PROTOCOL: Final = "x86_64-abi"
"""The layout's name in XenStore: that of 64-bit x86, which 64-bit ARM shares field for field."""
INFO_READONLY: Final = 4


class Operation(IntEnum):
    """BLKIF_OP_*."""

    READ = 0
    WRITE = 1
    FLUSH = 3
    DISCARD = 5
    INDIRECT = 6


class Status(IntEnum):
    """BLKIF_RSP_*."""

    OKAY = 0
    ERROR = -1
    EOPNOTSUPP = -2


_HEAD = struct.Struct("<BBHxxxxQQ")
_DISCARD = struct.Struct("<BBHxxxxQQQ")
_INDIRECT = struct.Struct("<BBHxxxxQQHxxI")
_SEGMENT = struct.Struct("<IBBxx")
_RESPONSE = struct.Struct("<QBxhxxxx")


def encode_segments(refs: range, sectors: int) -> bytes:
    """The segments of a transfer that fills whole pages from the start, the last one as far as needed."""
    full, rest = divmod(sectors, SECTORS_PER_PAGE)
    parts = [_SEGMENT.pack(ref, 0, SECTORS_PER_PAGE - 1) for ref in refs[:full]]
    if rest:
        parts.append(_SEGMENT.pack(refs[full], 0, rest - 1))
    return b"".join(parts)


def encode_transfer(operation: Operation, request_id: int, sector: int, segments: bytes) -> bytes:
    """READ or WRITE with its segments in the slot."""
    return _HEAD.pack(operation, len(segments) // _SEGMENT.size, 0, request_id, sector) + segments


def encode_indirect(operation: Operation, request_id: int, sector: int, segments: int, ref: int) -> bytes:
    """READ or WRITE whose segments lie in one granted page."""
    return _INDIRECT.pack(Operation.INDIRECT, operation, segments, request_id, sector, 0, ref)


def encode_flush(request_id: int) -> bytes:
    return _HEAD.pack(Operation.FLUSH, 0, 0, request_id, 0)


def encode_discard(request_id: int, sector: int, sectors: int) -> bytes:
    return _DISCARD.pack(Operation.DISCARD, 0, 0, request_id, sector, sectors)


def encode_response(request_id: int, operation: int, status: int) -> bytes:
    """16 bytes, padding zeroed (XSA-216)."""
    return _RESPONSE.pack(request_id, operation, status)


def decode_response(untrusted_slot: bytes) -> tuple[int, int, int]:
    """(id, operation, status); the id means nothing until it is found among the open requests."""
    request_id, operation, status = _RESPONSE.unpack(untrusted_slot)
    return request_id, operation, status
