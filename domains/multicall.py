"""Several hypercalls in one, as a domain makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.multicall import split


class Answered(NamedTuple):
    """What came of one of them."""

    errno: int
    value: Any
    """Or why it was refused, in words."""
    descriptors: list[int]
    """Ours to close."""


def ask_all(call: Callable[[Any], Any], calls: Sequence[Any]) -> list[Answered]:
    """Of each, in order, in as few hypercalls as take them; one failing stops none."""
    return [answered for some in split(calls) for answered in ask(call, some)]


def ask(call: Callable[[Any], Any], calls: list[Any]) -> list[Answered]:
    """Of as many as one takes; HypercallError when it is refused as a whole."""
    reply = call(m.Multicall([pack_call(one) for one in calls]))
    replies, descriptors = reply if isinstance(reply, tuple) else (reply, [])
    left = iter(descriptors)
    return [Answered(code, value, [next(left) for _ in range(count)]) for code, value, count in replies]
