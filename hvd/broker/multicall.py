"""Several hypercalls in one: what may be part of it, and how much it may bring."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hvd.broker.answers import Answer, Descriptors
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.codec import unpack_call
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX
from hvd.transport.multicall import (
    BRINGS,
    MULTICALL_NAMES_MAX,
    descriptors_at_most,
    is_too_much,
    may_be_part,
    names_of,
)

ITEM_BYTES_LEAST = 512
"""What a name or a value that is read counts at least: to find a small one takes as long as to copy so many."""
READS = (m.StoreDirectory, m.StoreReadAll, m.StoreRead, m.StoreGetPerms)
TOO_MUCH_READ = errno.E2BIG, f"the reads of a multicall bring at most {MULTICALL_REPLY_BYTES_MAX} bytes", ()


def carry_out(entries: list[bytes], one: Callable[[Any], Answer]) -> Answer:
    """[errno, value or text, descriptors] of each, in order, and the descriptors of all; `one` makes a single call.

    One failing stops none. BadMessage or Refused, and nothing was done, when an entry cannot be part of one, or all of
    them are more than one takes. The read that brings more than the bound, and each behind it, is E2BIG in its place:
    whoever sends a few bytes shall not make the broker find, pack and queue megabytes.
    """
    calls = [unpack_call(entry) for entry in entries]
    _check(calls)
    replies: list[list[Any]] = []
    descriptors: list[tuple[str, int]] = []
    left = MULTICALL_REPLY_BYTES_MAX
    for call in calls:
        is_read = isinstance(call, READS)
        code, value, brought = TOO_MUCH_READ if is_read and left < 0 else _reply(call, one)
        if is_read and (left := left - _size(value)) < 0:
            code, value, brought = TOO_MUCH_READ
        replies.append([code, value, len(brought)])
        descriptors += brought
    return Answer(replies, tuple(descriptors))


def _check(calls: list[Any]) -> None:
    for call in calls:
        if not may_be_part(call):
            others = ", ".join(kind.__name__ for kind in BRINGS)
            text = f"{type(call).__name__} cannot be part of a multicall: XenStore operations can, and {others}"
            raise Refused(errno.EINVAL, text)
    if is_too_much(calls):
        descriptors = f"{DESCRIPTORS_PER_MESSAGE} descriptors; these may bring {descriptors_at_most(calls)}"
        names = f"has at most {MULTICALL_NAMES_MAX} names on its paths; these have {names_of(calls)}"
        raise Refused(errno.E2BIG, f"a multicall brings at most {descriptors}, and {names}")


def _reply(call: Any, one: Callable[[Any], Answer]) -> tuple[int, Any, Descriptors]:
    try:
        answer = one(call)
    except Refused as refusal:
        return refusal.errno, refusal.text, ()
    return 0, answer.value, answer.descriptors


def _size(value: Any) -> int:
    """About what the wire takes for it, or what it takes to find it."""
    if isinstance(value, str | bytes):
        return max(len(value), ITEM_BYTES_LEAST)
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, dict):
        return sum(max(len(name) + len(entry), ITEM_BYTES_LEAST) for name, entry in value.items())
    return 0
