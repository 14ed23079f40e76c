"""`hvd bench`: measures, prints, and says which goals were missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hvd.toolstack.bench import report
from hvd.toolstack.bench.figures import HEADINGS
from hvd.toolstack.bench.machine_facts import machine_facts
from hvd.toolstack.bench.run import Run, cpus_from
from hvd.toolstack.bench.suite import BENCHES, Outcome, as_object, measure
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import FAILED, print_error, print_json, print_line, print_table
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.problems import Problem

ALL = "all"
INTERRUPTED = 130


def bench(
    what: str,
    *,
    seed: int,
    duration_s: float | None,
    cpus: str | None,
    kills: int | None,
    as_json: bool,
    check: bool,
    directory: Path | None,
) -> int:
    """Run one bench, or all of them; the exit status."""
    names = list(BENCHES) if what == ALL else [what]
    if what != ALL and what not in BENCHES:
        raise ConfigError([Problem("hvd bench", "", f"one of {', '.join([*BENCHES, ALL])}", repr(what))])
    chosen = cpus_from(cpus)
    if directory is not None:
        report.check_directory(directory)
    facts = machine_facts()
    if not as_json:
        print_line("machine: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    try:
        with ended_by_signals(), Progress(quiet=as_json) as progress:
            outcomes = []
            for name in names:
                seconds = BENCHES[name].seconds if duration_s is None else duration_s
                outcomes.append(measure(name, Run(seed, seconds, chosen, _telling(progress, name), kills)))
    except Ended:
        return INTERRUPTED
    command = {"bench": what, "seed": seed, "duration_s": duration_s, "cpus": list(chosen), "kills": kills}
    told = as_object(facts, command, outcomes)
    _show(outcomes, told, as_json=as_json)
    if directory is not None:
        report.write(directory, told)
    return _status(outcomes, told, check=check)


def _telling(progress: Progress, name: str) -> Any:
    return lambda text: progress(f"{name}: {text}")


def _show(outcomes: list[Outcome], told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    print_table(HEADINGS, [figure.as_row() for outcome in outcomes for figure in outcome.figures])
    for outcome in outcomes:
        for line in outcome.verdict.lines() if outcome.verdict else ():
            print_line(line)


def _status(outcomes: list[Outcome], told: dict[str, Any], *, check: bool) -> int:
    """What was acknowledged and lost is a failure always, a goal missed where somebody asked."""
    status = 0
    if any(outcome.verdict is not None and not outcome.verdict.intact for outcome in outcomes):
        print_error("acknowledged blocks were lost", as_json=False)
        status = FAILED
    missed = [goal for goal in told["goals"] if goal["met"] is False]
    if check and missed:
        print_error("\n".join(map(_missed, missed)), as_json=False)
        status = FAILED
    return status


def _missed(goal: dict[str, Any]) -> str:
    unit = f" {goal['unit']}".rstrip()
    found = "not measured" if goal["value"] is None else f"{goal['value']:g}{unit}"
    return f"goal missed: {goal['bench']}: {goal['name']}: {found}, not {goal['relation']} {goal['goal']:g}{unit}"
