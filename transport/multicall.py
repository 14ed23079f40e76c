"""Several hypercalls in one: which may be part of it, and how whoever has many makes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.hypercalls import HypercallError

MULTICALL_MAX = 64
"""Hypercalls of one."""
BRINGS: dict[type, int] = {m.GnttabMap: 1, m.GnttabUnmap: 0, m.EvtchnBindInterdomain: 3, m.EvtchnClose: 0,
                           m.PhysdevOpenMedium: 1}  # fmt: skip
"""What may be part of one beside XenStore operations: the descriptors that each brings, at the most."""


class Answered(NamedTuple):
    """What came of one of them."""

    errno: int
    value: Any
    """Or why it was refused, in words."""
    descriptors: list[int]
    """Ours to close."""


def may_be_part(call: Any) -> bool:
    """Whether a Multicall may hold this hypercall."""
    return type(call) in BRINGS or (type(call).__name__.startswith("Store") and not isinstance(call, m.StoreRing))


def ask_each(call: Callable[[Any], Any], calls: Sequence[Any]) -> Iterator[Answered]:
    """What came of each, in order, in as few hypercalls as take them; one failing stops none.

    HypercallError when one is refused as a whole; what came of those before it has been told by then.
    """
    entries = [pack_call(one) for one in calls]
    while entries:
        reply = call(m.Multicall(entries[:MULTICALL_MAX]))
        replies, descriptors = reply if isinstance(reply, tuple) else (reply, [])
        if not replies:
            raise HypercallError(errno.EPROTO, "the hypervisor carried out none of them", "Multicall")
        left = iter(descriptors)
        yield from [Answered(code, value, [next(left) for _ in range(count)]) for code, value, count in replies]
        del entries[: len(replies)]


def ask_all(call: Callable[[Any], Any], calls: Sequence[Any]) -> list[Answered]:
    """All that `ask_each` tells; what it brought is closed when one is refused as a whole."""
    answers: list[Answered] = []
    try:
        for answered in ask_each(call, calls):
            answers.append(answered)
    except BaseException:
        for descriptor in [one for answered in answers for one in answered.descriptors]:
            os.close(descriptor)
        raise
    return answers
