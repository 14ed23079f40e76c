"""Which hypercalls may be made together, and how many: both ends of a Multicall go by this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hvd.transport import messages as m
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE

MULTICALL_MAX = 64
"""Hypercalls of one."""
MULTICALL_NAMES_MAX = 512
"""Names on the paths of one: it is carried out whole, and each may be a node to be made. A single call is never too
long."""
BRINGS: dict[type, int] = {m.GnttabMap: 1, m.GnttabUnmap: 0, m.EvtchnBindInterdomain: 3, m.EvtchnClose: 0,
                           m.PhysdevOpenMedium: 1}  # fmt: skip
"""What may be part of one beside XenStore operations: the descriptors that each brings, at the most."""


def may_be_part(call: Any) -> bool:
    """Whether a Multicall may hold this hypercall."""
    return type(call) in BRINGS or (type(call).__name__.startswith("Store") and not isinstance(call, m.StoreRing))


def descriptors_at_most(calls: Sequence[Any]) -> int:
    """How many these may bring together; DESCRIPTORS_PER_MESSAGE is the most that one may."""
    return sum(BRINGS.get(type(call), 0) for call in calls)


def names_of(calls: Sequence[Any]) -> int:
    """On all their paths."""
    return sum(call.path.count("/") + 1 for call in calls if hasattr(call, "path"))


def is_too_much(calls: Sequence[Any]) -> bool:
    """Whether these are more than one Multicall takes."""
    if len(calls) > 1 and names_of(calls) > MULTICALL_NAMES_MAX:
        return True
    return len(calls) > MULTICALL_MAX or descriptors_at_most(calls) > DESCRIPTORS_PER_MESSAGE


def split(calls: Sequence[Any]) -> Iterator[list[Any]]:
    """These in order, as many at a time as one takes."""
    some: list[Any] = []
    names = descriptors = 0
    for call in calls:
        names += names_of([call])
        descriptors += descriptors_at_most([call])
        too_long = names > MULTICALL_NAMES_MAX or len(some) == MULTICALL_MAX
        if some and (too_long or descriptors > DESCRIPTORS_PER_MESSAGE):
            yield some
            some, names, descriptors = [], names_of([call]), descriptors_at_most([call])
        some.append(call)
    if some:
        yield some
