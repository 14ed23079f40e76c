"""`hvd chaos`: runs the seeds of a plan, says what went wrong, writes the report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hvd.toolstack.chaos.outcome import Outcome
from hvd.toolstack.chaos.plan import SEED_MAX
from hvd.toolstack.chaos.scenario import PAGE, RUNS, SUMMARY, Scenario
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import FAILED, print_error, print_json, print_line, print_table
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.problems import Problem

INTERRUPTED = 130
_SEEDS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")


def seeds_from(text: str) -> range:
    """`7` or `100-199`; ConfigError says what was expected."""
    match = _SEEDS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= SEED_MAX:
        raise ConfigError([Problem("hvd chaos", "--seeds", f"FIRST or FIRST-LAST, up to {SEED_MAX}", repr(text))])
    return range(first, last + 1)


def chaos(file: Path, *, seeds: str | None, out: Path, dry_run: bool, again: bool, as_json: bool) -> int:
    """Run them; the exit status: 0 when every run was as expected."""
    scenario = Scenario.load(file)
    wanted = seeds_from(seeds) if seeds else range(scenario.plan.seed, scenario.plan.seed + 1)
    if dry_run:
        _show_schedule(scenario, wanted, as_json=as_json)
        return 0
    _make(out)
    try:
        with ended_by_signals(), Progress(quiet=as_json) as progress:
            told = scenario.run_all(wanted, out, progress, _hearing(file, out, as_json=as_json), again=again)
    except Ended:
        scenario.report(out)
        return INTERRUPTED
    show(told, out, as_json=as_json)
    return FAILED if told["problems"] else 0


def _make(out: Path) -> None:
    """ConfigError where runs cannot be written: before anything runs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / RUNS).open("a").close()
    except OSError as error:
        expected = "a directory that can be written"
        raise ConfigError([Problem("hvd chaos", "--out", expected, f"{out}: {error.strerror}")]) from None


def _hearing(file: Path, out: Path, *, as_json: bool) -> Callable[[Outcome], None]:
    def hear(outcome: Outcome) -> None:
        injected = [fault for fault in outcome.faults if fault.injection is not None]
        recovered = sum(bool(fault.recovered_ns) for fault in injected)
        if as_json:
            print_json({"seed": outcome.seed, "ok": outcome.ok, "problems": outcome.problems,
                        "kept": str(outcome.kept or ""), "wall_s": outcome.wall_s,
                        "injected": len(injected), "recovered": recovered})  # fmt: skip
            return
        print_line(f"seed {outcome.seed}: {len(injected)} faults, {recovered} recovered, {outcome.wall_s:.1f} s")
        for problem in outcome.problems:
            print_error(f"seed {outcome.seed}: {problem}", as_json=False)
        if not outcome.ok:
            kept = f"its logs and files: {outcome.kept}\n" if outcome.kept else ""
            words = ("hvd", "chaos", str(file), "--seeds", str(outcome.seed), "--out", str(out), "--again")
            print_error(f"{kept}again: {shlex.join(words)}", as_json=False)

    return hear


def show(told: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """The figures of a report that was written in `out`."""
    if as_json:
        print_json(told)
        return
    headings = ("Fault", "Injected", "Activated", "Detected", "Recovered", "p50 ms", "p99 ms")
    print_table(headings, [_row(name, row) for name, row in told["faults"].items()])
    for name, refusal in told["refused"].items():
        print_line(f"{name}: {refusal['times']} refused, the first with: {refusal['first']}")
    bound = "" if told["bound_95"] is None else f"; 95 % bound of the rest: {told['bound_95']:.2%}"
    print_line(f"{told['healthy']} of {told['runs']} runs as expected (seeds {told['seeds']}){bound}")
    print_line(f"report: {out / PAGE}, {out / SUMMARY}")


def _row(name: str, row: dict[str, Any]) -> Sequence[str]:
    counts = [str(row[fate]).rjust(9) for fate in ("injected", "activated", "detected", "recovered")]
    times = [f"{row['recovered_ms'][rank]:.1f}".rjust(8) if row["recovered_ms"] else "-" for rank in ("p50", "p99")]
    return (name, *counts, *times)


def _show_schedule(scenario: Scenario, seeds: range, *, as_json: bool) -> None:
    """What would be done; nothing is started."""
    for seed in seeds:
        for step in scenario.schedule(seed):
            if as_json:
                faults = [fault.as_dict() for fault in step.faults]
                print_json({"seed": seed, "step": step.number, "pause_s": step.pause_s, "faults": faults})
            else:
                told = [f"{fault} ({'at once' if fault.for_s is None else f'{fault.for_s:g} s'}, seed {fault.seed})"
                        for fault in step.faults]  # fmt: skip
                print_line(f"seed {seed}, step {step.number}, after {step.pause_s * 1000:.0f} ms: {', '.join(told)}")
