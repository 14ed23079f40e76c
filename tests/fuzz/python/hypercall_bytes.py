"""Bytes that a domain sends as a hypercall: a message that survives the wire, or a BadMessage that can be answered
with."""

from __future__ import annotations

import errno

from hvd.transport.codec import (
    BadMessage,
    pack_call,
    pack_reply,
    pack_request,
    unpack_call,
    unpack_reply,
    unpack_request,
)
from hvd.transport.errors import LocalError, PeerFault

TEXT_MAX = 400


def play(data: bytes) -> None:
    _request(data)
    _entry(data)
    try:
        unpack_reply(data)
    except PeerFault as fault:
        assert str(fault)


def _request(data: bytes) -> None:
    try:
        sequence, events, descriptors, message = unpack_request(data)
    except BadMessage as error:
        assert 0 < len(str(error)) < TEXT_MAX
        pack_reply(error.sequence, errno.EBADMSG, str(error), 0)
        return
    try:
        packed = pack_request(message, sequence, events, descriptors)
    except LocalError:
        return  # fields that were left out made it short enough
    assert unpack_request(packed) == (sequence, events, descriptors, message)


def _entry(data: bytes) -> None:
    try:
        call = unpack_call(data)
    except BadMessage as error:
        assert 0 < len(str(error)) < TEXT_MAX
    else:
        assert unpack_call(pack_call(call)) == call
