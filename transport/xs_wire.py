"""XenStore's wire protocol (public/io/xs_wire.h): message types, header, error names, the ring page. No I/O.

A message is a header of four little-endian 32-bit words (type, request id, transaction id, length of what follows) and
at most 4,096 bytes, mostly strings that each end with a NUL. A reply has its request's type, or ERROR and the name of
an errno; the daemon says WATCH_EVENT unasked.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from hvd.transport.errors import PeerFault

HEADER = Struct("<IIII")
_new = tuple.__new__
"""Of a named tuple, without the call by names: two thirds of its time."""
PAYLOAD_MAX = 4096
"""XENSTORE_PAYLOAD_MAX. Who sends a longer one is not spoken to any more."""
MESSAGE_BYTES_MAX = HEADER.size + PAYLOAD_MAX


class Type(IntEnum):
    """XS_*."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


ERRORS: dict[int, bytes] = {
    getattr(errno, name): name.encode() + b"\0"
    for name in (
        "EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO", "ENOTEMPTY", "ENOSYS", "EROFS",
        "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM",
    )
}  # fmt: skip
"""What an ERROR says. An errno that has no name on the wire is EINVAL."""
_NUMBERS: dict[bytes, int] = {text.rstrip(b"\0"): number for number, text in ERRORS.items()}

RING_BYTES = 1024
"""Of each direction (struct xenstore_domain_interface): requests at 0, responses behind them, then the words below."""
REQUESTS_AT, RESPONSES_AT = 0, RING_BYTES
REQ_CONS_AT, REQ_PROD_AT, RSP_CONS_AT, RSP_PROD_AT = 2048, 2052, 2056, 2060
FEATURES_AT, CONNECTION_AT, ERROR_AT = 2064, 2068, 2072
FEATURE_RECONNECTION, FEATURE_ERROR = 1, 2
CONNECTED, RECONNECT = 0, 1


class RingError(IntEnum):
    """XENSTORE_ERROR_*, what the word at ERROR_AT says."""

    NONE = 0
    COMM = 1
    """Nobody speaks on this ring any more; reconnect."""
    RINGIDX = 2
    """The client's indices make no sense."""
    PROTO = 3
    """A message that is too long."""


class Message(NamedTuple):
    """One message as it came; the type may be any number."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


def pack(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
    """The bytes of a message."""
    return HEADER.pack(kind, req_id, tx_id, len(payload)) + payload


def split(untrusted: bytes | bytearray, start: int) -> tuple[Message, int] | None:
    """The message that begins at `start`, and where it ends; None while it is not whole.

    PeerFault as soon as its header says that it is too long: where the next one would begin is not to be trusted.
    """
    body = start + HEADER.size
    if len(untrusted) < body:
        return None
    kind, req_id, tx_id, length = HEADER.unpack_from(untrusted, start)
    if length > PAYLOAD_MAX:
        raise PeerFault(f"a message of {length} bytes; XenStore's have at most {PAYLOAD_MAX}")
    end = body + length
    if len(untrusted) < end:
        return None
    return _new(Message, (kind, req_id, tx_id, bytes(untrusted[body:end]))), end


def strings(*parts: bytes) -> bytes:
    """Each with its NUL."""
    return b"\0".join(parts) + b"\0" if parts else b""


def error_payload(number: int) -> bytes:
    """What an ERROR for this errno says."""
    return ERRORS.get(number, ERRORS[errno.EINVAL])


def error_number(payload: bytes) -> int:
    """The errno that an ERROR means; EIO for a name that xs_wire.h does not have."""
    return _NUMBERS.get(payload.rstrip(b"\0"), errno.EIO)
