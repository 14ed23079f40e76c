"""Several hypercalls in one: what may be part of it, and how much it may bring."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hvd.broker.answers import Answer, Descriptors
from hvd.broker.errors import Refused
from hvd.transport.codec import unpack_call
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX
from hvd.transport.multicall import BRINGS, descriptors_at_most, may_be_part


def carry_out(entries: list[bytes], one: Callable[[Any], Answer]) -> Answer:
    """[errno, value or text, descriptors] of each, in order, and the descriptors of all; `one` makes a single call.

    One failing stops none. BadMessage or Refused, and nothing was done, when an entry cannot be part of one, or all of
    them might bring more descriptors than one message has. What a read brings past the bound is E2BIG in its place:
    whoever sends a few bytes shall not make the broker pack and queue megabytes.
    """
    calls = [unpack_call(entry) for entry in entries]
    _check(calls)
    replies: list[list[Any]] = []
    descriptors: list[tuple[str, int]] = []
    left = MULTICALL_REPLY_BYTES_MAX
    for call in calls:
        code, value, brought = _reply(call, one)
        size = 0 if type(call) in BRINGS else _size(value)
        if size > left:
            code, value = errno.E2BIG, f"the reads of a multicall bring at most {MULTICALL_REPLY_BYTES_MAX} bytes"
        else:
            left -= size
        replies.append([code, value, len(brought)])
        descriptors += brought
    return Answer(replies, tuple(descriptors))


def _check(calls: list[Any]) -> None:
    for call in calls:
        if not may_be_part(call):
            others = ", ".join(kind.__name__ for kind in BRINGS)
            text = f"{type(call).__name__} cannot be part of a multicall: XenStore operations can, and {others}"
            raise Refused(errno.EINVAL, text)
    most = descriptors_at_most(calls)
    if most > DESCRIPTORS_PER_MESSAGE:
        text = f"a multicall brings at most {DESCRIPTORS_PER_MESSAGE} descriptors; these may bring {most}"
        raise Refused(errno.E2BIG, text)


def _reply(call: Any, one: Callable[[Any], Answer]) -> tuple[int, Any, Descriptors]:
    try:
        answer = one(call)
    except Refused as refusal:
        return refusal.errno, refusal.text, ()
    return 0, answer.value, answer.descriptors


def _size(value: Any) -> int:
    """About what the wire takes for it. Only reads bring anything of a size."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size, value))
    return sum(len(name) + len(entry) for name, entry in value.items()) if isinstance(value, dict) else 0
