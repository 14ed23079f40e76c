"""Several XenStore operations in one hypercall: what may be part of one, and how much its reads may bring."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hvd.broker.errors import Refused
from hvd.transport.codec import unpack_call
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX
from hvd.transport.messages import StoreRing


def carry_out(entries: list[bytes], one: Callable[[Any], Any]) -> list[list[Any]]:
    """[errno, value or text] of each, in order; `one` makes a single call. One failing stops none.

    BadMessage or Refused, and nothing was done, when an entry is no XenStore operation. What a read brings past the
    bound is E2BIG in its place: whoever sends a few bytes shall not make the broker pack and queue megabytes.
    """
    calls = [unpack_call(entry) for entry in entries]
    for call in calls:
        if not type(call).__name__.startswith("Store") or isinstance(call, StoreRing):
            raise Refused(errno.EINVAL, f"{type(call).__name__} cannot be part of a multicall: XenStore operations can")
    replies: list[list[Any]] = []
    left = MULTICALL_REPLY_BYTES_MAX
    for call in calls:
        reply = _reply(call, one)
        size = _size(reply[1])
        if size > left:
            reply = [errno.E2BIG, f"the reads of a multicall bring at most {MULTICALL_REPLY_BYTES_MAX} bytes"]
        else:
            left -= size
        replies.append(reply)
    return replies


def _reply(call: Any, one: Callable[[Any], Any]) -> list[Any]:
    try:
        return [0, one(call)]
    except Refused as refusal:
        return [refusal.errno, refusal.text]


def _size(value: Any) -> int:
    """About what the wire takes for it. Only reads bring anything of a size."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size, value))
    return sum(len(name) + len(entry) for name, entry in value.items()) if isinstance(value, dict) else 0
