"""How a bench is run: for how long, on which CPUs, in which order; and contenders measured in turns."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.problems import Problem
from hvd.transport.histogram import Histogram

ROUNDS = 5
"""Turns of each contender: what disturbs the machine for a while disturbs all of them."""
TURN_MIN_NS = 20_000_000

Contender = Callable[[int], Histogram]
"""Measures for so many nanoseconds."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the user chose. `duration_s` is about how long one bench measures; starting and ending comes on top."""

    seed: int
    duration_s: float
    cpus: tuple[int, ...]
    """Where the two ends run: the first, and the last."""
    tell: Callable[[str], None]
    kills: int | None = None
    """Of a driver domain, where a bench kills one; None: as many as fit into the duration."""
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", random.Random(self.seed))

    def kills_of(self, part: float, each_s: float) -> int:
        """So many, three at least, unless the user chose."""
        return max(int(self.duration_s * part / each_s), 3) if self.kills is None else self.kills

    @property
    def here(self) -> int:
        """The CPU of the asking end."""
        return self.cpus[0]

    @property
    def there(self) -> int:
        """The CPU of the answering end."""
        return self.cpus[-1]

    @property
    def one_cpu(self) -> bool:
        return self.here == self.there

    def share_ns(self, part: float) -> int:
        """Part of the whole duration, at least one short turn."""
        return max(int(self.duration_s * part * 1e9), TURN_MIN_NS)


def cpus_from(text: str | None) -> tuple[int, ...]:
    """`--cpus 0,1`; without it the first and the last that this process may use. ConfigError names what is wrong."""
    usable = sorted(os.sched_getaffinity(0))
    if text is None:
        return (usable[0], usable[-1])
    names = text.split(",")
    if not all(name.isascii() and name.isdecimal() and int(name) in usable for name in names):
        listed = ", ".join(map(str, usable))
        expected = f"a list of the CPUs that this process may use ({listed})"
        raise ConfigError([Problem("--cpus", "", expected, repr(text))])
    return tuple(map(int, names))


def in_turns(run: Run, what: str, contenders: Mapping[str, Contender], total_ns: int) -> dict[str, Histogram]:
    """Every contender so often, in an order that the seed shuffles anew in each round; each one's turns added up."""
    merged = {name: Histogram() for name in contenders}
    turn_ns = max(total_ns // (ROUNDS * max(len(contenders), 1)), TURN_MIN_NS)
    for number in range(ROUNDS):
        names = list(contenders)
        run.random.shuffle(names)
        for name in names:
            run.tell(f"{what}, round {number + 1} of {ROUNDS}: {name}")
            merged[name].add(contenders[name](turn_ns))
    return merged


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """This thread runs on one CPU alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
