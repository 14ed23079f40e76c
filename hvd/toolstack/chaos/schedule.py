"""What a run does and when, before it is done: a pure function of the plan and the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hvd.toolstack.chaos.plan import FaultChoice, Plan
from hvd.toolstack.faults.fault import Aim
from hvd.toolstack.faults.registry import FAULTS

FAULT_SEED_BITS = 32
TRIES = 20
"""Draws for a fault whose victims nobody of the same step has."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of a step, decided."""

    name: str
    victims: tuple[str, ...]
    for_s: float | None
    seed: int
    parameters: tuple[tuple[str, int], ...]
    then_restart: bool = False

    def __str__(self) -> str:
        return " ".join((self.name, *self.victims))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class Step:
    """So long after the one before has recovered, these faults begin together."""

    number: int
    pause_s: float
    faults: tuple[PlannedFault, ...]


def schedule(plan: Plan, seed: int) -> list[Step]:
    """The steps of a run. The same plan and seed give the same steps, on every machine."""
    source = random.Random(seed)
    return [
        Step(number, source.uniform(*plan.pause_ms) / 1000, tuple(_burst(plan, source)))
        for number in range(1, plan.steps + 1)
    ]


def _burst(plan: Plan, source: random.Random) -> Iterator[PlannedFault]:
    """Faults for different victims; what is meant for many comes alone."""
    taken: set[str] = set()
    size = source.randint(*plan.burst)
    for _ in range(TRIES):
        choice = _choose(plan, source)
        fault = _planned(choice, source)
        if _is_for_many(choice):
            if not taken:
                yield fault
                return
            continue
        if taken.isdisjoint(fault.victims):
            taken.update(fault.victims)
            yield fault
        if len(taken) >= size:
            return


def _choose(plan: Plan, source: random.Random) -> FaultChoice:
    return source.choices(plan.faults, [choice.weight for choice in plan.faults])[0]


def _is_for_many(choice: FaultChoice) -> bool:
    return FAULTS[choice.name].aim is not Aim.DOMAINS


def _planned(choice: FaultChoice, source: random.Random) -> PlannedFault:
    aim = FAULTS[choice.name].aim
    victims = (source.choice(choice.victims),) if aim in (Aim.DOMAINS, Aim.SPARED) else choice.victims
    for_s = None if choice.for_ms is None else source.randint(*choice.for_ms) / 1000
    seed = source.getrandbits(FAULT_SEED_BITS)
    return PlannedFault(choice.name, victims, for_s, seed, choice.parameters, choice.then_restart)
