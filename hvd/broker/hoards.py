"""What libzmq keeps for peers who never finish: all parts of a message until the last has come, without a bound.

Its thread allocates them, in an arena of malloc's of its own, where next to nothing is otherwise.
"""

from __future__ import annotations

import re

from hvd.transport._native import arenas

HOARD_BYTES, HOARD_BYTES_EACH = 8 << 20, 1 << 20
"""In use in the arenas of other threads than the first: more, and more than the second for each domain, is a hoard."""
TURNS_ALONE, TURNS_TOGETHER = 16, 16
"""Endpoints are closed in turn to see whose a hoard is: the likeliest last and each alone, others in so many groups."""
HEAP = rb'(?s)<heap nr="(\d+)">(.*?)</heap>'
HAS = rb'<system type="current" size="(\d+)"/>'
FREE = rb'<total type="(?:fast|rest)" count="\d+" size="(\d+)"/>'


def bytes_in_other_arenas() -> int:
    """Bytes in use in all arenas but the first thread's; malloc_info(3) tells it in some 30 µs."""
    return sum(
        sum(map(int, re.findall(HAS, heap))) - sum(map(int, re.findall(FREE, heap)))
        for number, heap in re.findall(HEAP, arenas())
        if number != b"0"
    )


def is_hoard(kept: int, domains: int) -> bool:
    """Whether that is more than the messages of so many domains can be."""
    return kept > HOARD_BYTES + HOARD_BYTES_EACH * domains


def turns(count: int) -> list[int]:
    """How many to close in each turn."""
    together = max(0, count - TURNS_ALONE)
    size = -(-together // TURNS_TOGETHER)
    sizes = [min(size, together - at) for at in range(0, together, size or 1)]
    return [*sizes, *[1] * (count - together)]
