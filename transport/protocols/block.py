"""The block device: Xen's blkif (public/io/blkif.h, 64-bit layout), what both ends need of it beside its slots.

A ring of 112-byte requests and 16-byte responses in one or more pages; one event channel. A request names sectors of
512 bytes and the granted pages their data lies in: up to 11 segments in the slot itself, or up to 8 pages of segments
(INDIRECT). Responses carry the request's id and may come in any order. The slots' layouts are in
transport/native/blkif.hpp.

Backend keys    feature-flush-cache feature-discard feature-persistent feature-max-indirect-segments
max-ring-page-order sectors
                sector-size physical-sector-size info (4: read-only) mode params hvd-write-log (a file: log writes)
                hvd-ring-checks (1: this backend keeps a check beside each index of the ring)
Frontend keys   ring-ref | ring-page-order num-ring-pages ring-ref%u, event-channel, protocol, feature-persistent
                hvd-ring-checks (1: so does this frontend)
                hvd-runs (first refs of runs of grants: the backend maps them with the ring)

hvd beyond Xen: a frontend outlives its backend. It keeps every request until it is answered, makes the ring empty for
the next backend (see domains/xenbus.py) and issues again, in the order of their ids, what is open. An id is never
used twice, so a late or second answer is recognised and dropped.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

SECTOR_SIZE: Final = 512
SECTORS_MAX: Final = (2**63 - 1) // SECTOR_SIZE
"""Of a disk: what fits into a file."""
REQUEST_SIZE: Final = 112
RESPONSE_SIZE: Final = 16
REQUEST_ID_OFFSET: Final = 8
"""Of every operation's request; eight bytes."""
RESPONSE_ID_OFFSET: Final = 0
DIRECT_SEGMENTS_MAX: Final = 11
INDIRECT_SEGMENTS_MAX: Final = 256
RING_PAGE_ORDER_MAX: Final = 4
PROTOCOL: Final = "x86_64-abi"
"""The layout's name in XenStore: that of 64-bit x86, which 64-bit ARM shares field for field."""
INFO_READONLY: Final = 4
DISCARD: Final = "discard-enable"
"""The backend's key in which the toolstack says "0" of a disk that is to offer no discarding."""


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
