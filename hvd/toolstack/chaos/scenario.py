"""A scenario from Python: load a plan, run seeds of it, go on where an earlier call stopped, write the report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from hvd.toolstack.chaos.outcome import Outcome
from hvd.toolstack.chaos.plan import Plan, load_plan
from hvd.toolstack.chaos.run import run
from hvd.toolstack.chaos.schedule import Step, schedule
from hvd.toolstack.chaos.summary import summary

RUNS, SUMMARY, PAGE = "runs.jsonl", "report.json", "report.html"


class Scenario:
    """A plan that can be run.

    scenario = hvd.Scenario.load("plan.toml")
    outcome = scenario.run(seed=7)
    assert outcome.ok, outcome.problems
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The scenario in a file; ConfigError names everything that is wrong with it."""
        return cls(load_plan(path))

    def schedule(self, seed: int) -> list[Step]:
        """What a run of this seed does. Nothing is started."""
        return schedule(self.plan, seed)

    def run(
        self, seed: int | None = None, tell: Callable[[str], None] | None = None, keep: Path | None = None
    ) -> Outcome:
        """One run, in a cluster of its own; None: the plan's seed. What went wrong is in the outcome, not raised.

        `keep`: a directory to be made for the logs and files of a run that is not as expected.
        """
        return run(self.plan, self.plan.seed if seed is None else seed, tell or _ignore, keep)

    def run_all(
        self,
        seeds: Iterable[int],
        directory: Path,
        tell: Callable[[str], None] | None = None,
        hear: Callable[[Outcome], None] | None = None,
        *,
        again: bool = False,
    ) -> dict[str, Any]:
        """Run those of these seeds that the directory has no run of, or all (`again`); its report is written.

        Returns the summary.

        A run is written when it is over, so that whoever is interrupted goes on there, and several may share the work.
        Runs of a plan, cluster or kernel that has been changed since do not count. Of a run that is not as expected
        `seed-N` keeps logs and files.
        """
        directory.mkdir(parents=True, exist_ok=True)
        done = set() if again else {row["seed"] for row in self.rows(directory)}
        for seed in seeds:
            if seed not in done:
                outcome = self.run(seed, tell, directory / f"seed-{seed}")
                _append(directory / RUNS, outcome)
                (hear or _ignore)(outcome)
        return self.report(directory)

    def report(self, directory: Path) -> dict[str, Any]:
        """Write report.json and report.html of all runs in the directory; the summary."""
        from hvd.toolstack.chaos.page import page

        rows = self.rows(directory)
        told = summary(self.plan.name, rows)
        (directory / SUMMARY).write_text(json.dumps(told, indent=1) + "\n")
        (directory / PAGE).write_text(page(told, rows))
        return told

    def rows(self, directory: Path) -> list[dict[str, Any]]:
        """Those of this plan as it is now."""
        digest = self.plan.digest()
        return [row for row in rows_of(directory) if row["plan_digest"] == digest]


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """Every whole run of a directory, by its seed; the last one counts where a seed was run twice."""
    try:
        lines = (directory / RUNS).read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # its writer was killed
        rows[row["seed"]] = row
    return [rows[seed] for seed in sorted(rows)]


def _append(path: Path, outcome: Outcome) -> None:
    """In one write: others may be appending too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, (json.dumps(outcome.as_dict()) + "\n").encode())
    finally:
        os.close(descriptor)


def _ignore(news: object) -> None:
    """For whoever does not want to know."""
