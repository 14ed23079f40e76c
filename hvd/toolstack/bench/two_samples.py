"""Whether two samples differ by more than chance would have it: the Mann-Whitney U test, of any distribution."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided, by the normal approximation with a correction for ties; good from some eight values on each side.

    The probability that samples of one and the same population differ in rank as much as these do.
    """
    n, m = len(one), len(other)
    if not n or not m:
        return 1.0
    ranks = _ranks([*one, *other])
    u = sum(ranks[:n]) - n * (n + 1) / 2
    total = n + m
    ties = sum(count**3 - count for count in Counter([*one, *other]).values())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # all are equal
    distance = max(0.0, abs(u - n * m / 2) - 0.5)
    return math.erfc(distance / math.sqrt(2 * variance))


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1 on; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in range(first, last + 1):
            ranks[order[place]] = (first + last) / 2 + 1
        first = last + 1
    return ranks
