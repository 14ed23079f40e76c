"""What a handler answers a hypercall with, where that is more than a value."""

from __future__ import annotations

from typing import Any

from hvd.transport.records import dataclass

Descriptors = tuple[tuple[str, int], ...]
"""Which held descriptors go to the caller: (key, index in that key's list)."""

Calls = tuple[bytes, ...]
"""Hypercalls, each packed as an entry of a multicall."""
Ahead = tuple[tuple[bytes, Any, Descriptors], ...]
"""Calls that were carried out before they were asked: packed, with value and descriptors."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A value with descriptors to go with it."""

    value: Any
    descriptors: Descriptors
