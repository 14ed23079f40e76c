"""A figure and its goal: percentiles of samples, what they had to be, whether they were."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hvd.toolstack.faults.checker import Verdict
from hvd.toolstack.faults.killer import percentiles


@dataclass(frozen=True, slots=True)
class Goal:
    """One percentile, the most it may be."""

    percentile: str
    most: float


@dataclass(frozen=True, slots=True)
class Figure:
    """Samples of one measure, in `unit`."""

    name: str
    unit: str
    samples: list[float]
    goals: tuple[Goal, ...] = ()
    note: str = ""
    percentiles: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "percentiles", {key: round(value, 3) for key, value in percentiles(self.samples).items()}
        )

    @property
    def met(self) -> bool:
        """Whether every goal is met; without samples none is."""
        return all(self.percentiles.get(goal.percentile, float("inf")) <= goal.most for goal in self.goals)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: percentiles and goals, not the samples."""
        return {"name": self.name, "unit": self.unit, "n": len(self.samples), **self.percentiles,
                "goals": [asdict(goal) for goal in self.goals], "met": self.met, "note": self.note}  # fmt: skip

    def as_row(self) -> list[str]:
        """For a table."""
        cells = [f"{self.percentiles[p]:10.3f}" if p in self.percentiles else "-" for p in ("p50", "p90", "p99", "max")]
        goals = ", ".join(f"{goal.percentile} ≤ {goal.most:g}" for goal in self.goals)
        verdict = "" if not self.goals else "met" if self.met else "NOT MET"
        return [self.name, self.unit, f"{len(self.samples):7}", *cells, goals, verdict, self.note]


HEADINGS = ("measure", "unit", "n", "p50", "p90", "p99", "max", "goal", "", "")


def ratio(name: str, samples: list[float], floor: list[float], most: float, note: str = "") -> Figure:
    """The median of samples as a multiple of the median of a floor taken in the same run."""
    measured, under = percentiles(samples).get("p50"), percentiles(floor).get("p50")
    values = [measured / under] if measured and under else []
    return Figure(name, "×", values, (Goal("p50", most),), note)


def as_object(facts: dict[str, str], figures: list[Figure], verdict: Verdict) -> dict[str, Any]:
    """All of a run as one JSON object."""
    return {
        "schema": "hvd-measure-ipc/1",
        "machine": facts,
        "figures": [figure.as_dict() for figure in figures],
        "verdict": verdict.as_dict(),
    }
