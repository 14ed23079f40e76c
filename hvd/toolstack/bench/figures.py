"""A figure and its goals: percentiles of what was measured, what they had to be, whether they were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hvd.toolstack.faults.checker import Verdict
from hvd.toolstack.faults.killer import percentiles
from hvd.transport.histogram import Histogram, to_text

SCHEMA = "hvd-bench/1"
"""What `as_object` makes; the number changes when a program that reads it would have to."""

NANOSECONDS = {"µs": 1e3, "ms": 1e6}
"""Of the units in which durations are told."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One percentile, the most it may be, or the least."""

    percentile: str
    most: float | None = None
    least: float | None = None

    def met_by(self, value: float | None) -> bool:
        """What was not measured meets nothing."""
        if value is None:
            return False
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        bounds = [f"{sign} {bound:g}" for sign, bound in (("≤", self.most), ("≥", self.least)) if bound is not None]
        return f"{self.percentile} {' and '.join(bounds)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of one thing, in `unit`: single samples, or a histogram of nanoseconds (see `timed`)."""

    name: str
    unit: str
    samples: list[float]
    goals: tuple[Goal, ...] = ()
    note: str = ""
    wait: str = ""
    """How both ends waited: spin, adaptive, sleep; for others polled or woken."""
    times: Histogram | None = None
    doubt: str = ""
    """Why what was measured says nothing about its goals, neither that they were met nor that they were missed."""
    percentiles: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        found = percentiles(self.samples) if self.times is None else _of_histogram(self.times)
        object.__setattr__(self, "percentiles", {key: round(value, 3) for key, value in found.items()})

    @classmethod
    def timed(
        cls, name: str, times: Histogram, goals: tuple[Goal, ...] = (), *, wait: str = "", note: str = ""
    ) -> Figure:
        """Durations, shown in microseconds."""
        return cls(name, "µs", [], goals, note, wait, times)

    @property
    def n(self) -> int:
        """How often it was measured."""
        return len(self.samples) if self.times is None else self.times.count

    @property
    def p50(self) -> float | None:
        return self.percentiles.get("p50")

    @property
    def met(self) -> bool | None:
        """Whether every goal is met; without samples none is. None: nobody can say."""
        return None if self.doubt else all(goal.met_by(self.percentiles.get(goal.percentile)) for goal in self.goals)

    @property
    def remark(self) -> str:
        """The note, and the doubt."""
        return "; ".join(text for text in (self.note, self.doubt) if text)

    def as_dict(self) -> dict[str, Any]:
        """For JSON. `hdr`: durations in HdrHistogram's V2 compressed encoding, in nanoseconds; samples are not kept."""
        times = self.times or _of_durations(self.samples, self.unit)
        hdr = {} if times is None else {"hdr": to_text(times)}
        row = {"name": self.name, "unit": self.unit, "wait": self.wait, "n": self.n, **self.percentiles}
        return row | {"note": self.remark} | hdr

    def goals_as_dicts(self) -> list[dict[str, Any]]:
        """One object a goal; `met` is None where it is in doubt."""
        return [
            {
                "name": self.name if goal.percentile == "p50" else f"{self.name}, {goal.percentile}",
                "value": self.percentiles.get(goal.percentile),
                "unit": self.unit,
                "goal": goal.least if goal.most is None else goal.most,
                "relation": "at least" if goal.most is None else "at most",
                "met": None if self.doubt else goal.met_by(self.percentiles.get(goal.percentile)),
            }
            for goal in self.goals
        ]

    def as_row(self) -> list[str]:
        """For a table."""
        cells = [f"{self.percentiles[p]:10.3f}" if p in self.percentiles else "-" for p in ("p50", "p90", "p99", "max")]
        verdict = {True: "met", False: "NOT MET", None: "not judged"}[self.met] if self.goals else ""
        goals = ", ".join(map(str, self.goals))
        return [self.name, self.wait, self.unit, f"{self.n:8}", *cells, goals, verdict, self.remark]


def _of_durations(samples: list[float], unit: str) -> Histogram | None:
    """What single samples would be as a histogram; None: they are no durations, or one number alone."""
    if unit not in NANOSECONDS or len(samples) < 2:
        return None
    times = Histogram()
    for sample in samples:
        times.record(max(round(sample * NANOSECONDS[unit]), 0))
    return times


HEADINGS = ("measure", "wait", "unit", "n", "p50", "p90", "p99", "max", "goal", "", "")


def value(name: str, unit: str, number: float | None, *goals: Goal, note: str = "", wait: str = "") -> Figure:
    """What is one number; None: it could not be measured, and meets no goal."""
    return Figure(name, unit, [] if number is None else [number], goals, note, wait)


def absent(name: str, why: str) -> Figure:
    """Something to compare with that is not there: said, and no failure."""
    return Figure(name, "", [], note=f"absent: {why}")


def ratio(
    name: str, measured: Figure, floor: Figure, *, most: float | None = None, least: float | None = None, note: str = ""
) -> Figure:
    """The median of one figure as a multiple of the median of another from the same run.

    No goal without the other, and none without a bound.
    """
    if not floor.p50:
        return absent(name, f"no figure of {floor.name}")
    number = None if measured.p50 is None else measured.p50 / floor.p50
    goals = () if most is None and least is None else (Goal("p50", most, least),)
    return value(name, "×", number, *goals, note=note)


def goals_of(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Every goal of every figure, in order."""
    return [goal for figure in figures for goal in figure.goals_as_dicts()]


def as_object(facts: dict[str, str], figures: Sequence[Figure], verdict: Verdict | None = None) -> dict[str, Any]:
    """All of a run as one JSON object."""
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": facts,
        "rows": [figure.as_dict() for figure in figures],
        "goals": goals_of(figures),
    }
    return told if verdict is None else told | {"verdict": verdict.as_dict()}


def _of_histogram(times: Histogram) -> dict[str, float]:
    if not times.count:
        return {}
    ranks = {f"p{percent:g}": times.percentile(percent) / 1000 for percent in (50, 90, 99, 99.9)}
    return {"min": times.min / 1000} | ranks | {"max": times.max / 1000}
