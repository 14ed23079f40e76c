"""Which hypercalls may be made together, and how many: both ends of a Multicall go by this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hvd.transport import messages as m
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE

MULTICALL_MAX = 64
"""Hypercalls of one."""
BRINGS: dict[type, int] = {m.GnttabMap: 1, m.GnttabUnmap: 0, m.EvtchnBindInterdomain: 3, m.EvtchnClose: 0,
                           m.PhysdevOpenMedium: 1}  # fmt: skip
"""What may be part of one beside XenStore operations: the descriptors that each brings, at the most."""


def may_be_part(call: Any) -> bool:
    """Whether a Multicall may hold this hypercall."""
    return type(call) in BRINGS or (type(call).__name__.startswith("Store") and not isinstance(call, m.StoreRing))


def descriptors_at_most(calls: Sequence[Any]) -> int:
    """How many these may bring together; DESCRIPTORS_PER_MESSAGE is the most that one may."""
    return sum(BRINGS.get(type(call), 0) for call in calls)


def split(calls: Sequence[Any]) -> Iterator[list[Any]]:
    """These in order, as many at a time as one takes."""
    some: list[Any] = []
    for call in calls:
        if len(some) == MULTICALL_MAX or descriptors_at_most([*some, call]) > DESCRIPTORS_PER_MESSAGE:
            yield some
            some = []
        some.append(call)
    if some:
        yield some
