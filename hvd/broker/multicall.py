"""Several hypercalls in one: what may be part of it, and how much is done before the caller has to ask for the rest."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hvd.broker.answers import Answer, Descriptors
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.codec import unpack_call
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX, MULTICALL_WORK_MAX
from hvd.transport.multicall import BRINGS, may_be_part

ITEM_BYTES_LEAST = 512
"""What a name or a value that is read counts at least: to find a small one takes as long as to copy so many."""
READS = (m.StoreDirectory, m.StoreReadAll, m.StoreRead, m.StoreGetPerms)
CALL_WORK, COMMIT_WORK = 8, 200
"""Of a call that is no read, and of a commit, beside what the store has to do for them: some two microseconds each."""


def carry_out(
    entries: list[bytes], one: Callable[[Any], Answer], store_work: Callable[[], int], has_to_wait: Callable[[], bool]
) -> Answer:
    """[errno, value or text, descriptors] of each, in order, and the descriptors of all; `one` makes a single call.

    One failing stops none. It is preempted, as Xen's is (`multicall.c`), behind the call with which it has taken
    MULTICALL_WORK_MAX, the store's own (`store_work`: what it has had to do, ever) included, behind one for whose
    changes the caller `has_to_wait`, and before one that makes it more than one reply brings: those are answered that
    were carried out, at least one, and the caller asks for the others anew. Where that is depends on nothing but the
    tables: what was carried out may be carried out again from the journal. BadMessage or Refused, and nothing was done,
    when an entry cannot be part of one.
    """
    calls = [unpack_call(entry) for entry in entries]
    _check(calls)
    replies: list[list[Any]] = []
    descriptors: list[tuple[str, int]] = []
    size, work, before = 0, 0, store_work()
    for call in calls:
        if work + store_work() - before >= MULTICALL_WORK_MAX or (replies and has_to_wait()):
            break
        if len(descriptors) + BRINGS.get(type(call), 0) > DESCRIPTORS_PER_MESSAGE:
            break
        code, value, brought = _reply(call, one)
        if isinstance(call, READS):
            size += _size(value)
            if replies and size > MULTICALL_REPLY_BYTES_MAX:
                break  # it is read anew
        work += _work(call)
        replies.append([code, value, len(brought)])
        descriptors += brought
    return Answer(replies, tuple(descriptors))


def _check(calls: list[Any]) -> None:
    for call in calls:
        if not may_be_part(call):
            others = ", ".join(kind.__name__ for kind in BRINGS)
            text = f"{type(call).__name__} cannot be part of a multicall: XenStore operations can, and {others}"
            raise Refused(errno.EINVAL, text)


def _reply(call: Any, one: Callable[[Any], Answer]) -> tuple[int, Any, Descriptors]:
    try:
        answer = one(call)
    except Refused as refusal:
        return refusal.errno, refusal.text, ()
    return 0, answer.value, answer.descriptors


def _work(call: Any) -> int:
    if isinstance(call, READS):
        return 0
    return COMMIT_WORK if isinstance(call, m.StoreTransactionEnd) else CALL_WORK


def _size(value: Any) -> int:
    """About what the wire takes for it, or what it takes to find it."""
    if isinstance(value, str | bytes):
        return max(len(value), ITEM_BYTES_LEAST)
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, dict):
        return sum(max(len(name) + len(entry), ITEM_BYTES_LEAST) for name, entry in value.items())
    return 0
