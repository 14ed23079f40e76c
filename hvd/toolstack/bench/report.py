"""docs/performance.md: what a run of the benches found, as a page with tables and plots."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hvd.toolstack.bench.bounds import WHAT_BOUNDS
from hvd.toolstack.bench.plots import check_library, draw
from hvd.toolstack.bench.suite import BENCHES
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.problems import Problem
from hvd.toolstack.faults.history import BREACHES

PAGE, PLOTS = "performance.md", "performance"
PLOTTED: dict[str, dict[str, str]] = {
    "ipc": {
        "Both hot": r"hot$",
        "Both asleep, two CPUs": r"asleep, two CPUs$",
        "Both asleep, one CPU": r"asleep, one CPU$",
        "Thinking, two CPUs": r"thought, two CPUs$",
        "At a fixed rate": r"calls/s",
    },
    "ring": {"Ring round trips": r"ring round trip|ping-pong"},
    "block": {"A disk and its image": r"^(disk|os\.p).*(one at a time|same image|in flight, each|in sequence)$"},
    "net": {"A packet's round trip": r"^round trip of a packet"},
    "boot": {"From hvd up, and from create": r"^hvd up|^domain create"},
    "recovery": {
        "A driver domain's death": r"next completed request$|death to|SIGKILL to the next hypercall",
        "A broker's death and the event channel": r"^event channel round trip",
        "A broker's death and the disk": r"^disk read, 4 KiB",
        "A bystander": r"^bystander",
    },
    "scale": {"A pair among many": r"event channel"},
    "hypercall": {"Hypercalls": r"round trip"},
    "store": {"A read beside what others do": r"^a read of another domain"},
    "fairness": {"A pair beside others": r"one CPU, beside"},
}
"""Plots by bench: a title, and which rows are in it."""


def check_directory(directory: Path) -> None:
    """ConfigError when the page cannot be written there, HvdError when plots cannot be drawn: before anything runs."""
    if not directory.is_dir():
        raise ConfigError([Problem("--report", "", "a directory that exists", repr(str(directory)))])
    check_library()


def write(directory: Path, told: dict[str, Any]) -> None:
    """The page and its plots, made anew; old plots go."""
    plots = directory / PLOTS
    plots.mkdir(exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    drawn: dict[str, list[tuple[str, str]]] = {}
    for name, wanted in PLOTTED.items():
        for title, pattern in wanted.items():
            timed = [row for row in told["rows"] if row["bench"] == name and "hdr" in row and row["n"]]
            rows = [row for row in timed if re.search(pattern, row["name"])]
            if rows:
                file = f"{name}-{re.sub('[^a-z]+', '-', title.lower())}.svg"
                draw(plots / file, title, rows)
                drawn.setdefault(name, []).append((title, f"{PLOTS}/{file}"))
    (directory / PAGE).write_text(page(told, drawn))


def page(told: dict[str, Any], drawn: dict[str, list[tuple[str, str]]]) -> str:
    """The text."""
    benches = list(dict.fromkeys(row["bench"] for row in told["rows"]))
    judged = [goal["met"] for goal in told["goals"] if goal["met"] is not None]
    unjudged = len(told["goals"]) - len(judged)
    parts = [
        "# Performance",
        f"Written by `{_command(told['command'])}`. Every figure in a table is from that one run, and every ratio "
        "from turns that were taken together. Timings are of the machine below; a goal that was missed on it says by "
        "how much.",
        _table(("machine", ""), [[key, value] for key, value in told["machine"].items()]),
        "Columns: *wait* says how both ends waited. *spin* and *polled* never sleep, *sleep* and *woken* always do, "
        "*adaptive* is what domains do by themselves. Percentiles of round trips are HdrHistogram's, of three digits.",
        "## Goals",
        f"{sum(judged)} of {len(judged)} were met." + (f" {unjudged} could not be judged." if unjudged else ""),
        _goals(told["goals"]),
        _bounds(told["goals"]),
    ]
    for name in benches:
        rows = [row for row in told["rows"] if row["bench"] == name]
        parts += [f"## {name}", f"{BENCHES[name].about[0].upper()}{BENCHES[name].about[1:]}.", _rows(rows)]
        parts += [f"![{title}]({file})" for title, file in drawn.get(name, [])]
        if name == "recovery" and "verdict" in told:
            parts.append(_verdict(told["verdict"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _command(command: dict[str, Any]) -> str:
    words = ["hvd", "bench", command["bench"], "--seed", str(command["seed"])]
    if command["duration_s"] is not None:
        words += ["--duration", f"{command['duration_s']:g}"]
    if command.get("kills") is not None:
        words += ["--kills", str(command["kills"])]
    return " ".join([*words, "--cpus", ",".join(map(str, command["cpus"])), "--report", "docs"])


def _goals(goals: list[dict[str, Any]]) -> str:
    signs = {"at most": "≤", "at least": "≥"}
    verdicts = {True: "met", False: "**missed**", None: "not judged"}
    rows = [
        [goal["bench"], goal["name"], _number(goal["value"]), f"{signs[goal['relation']]} {goal['goal']:g}",
         goal["unit"], verdicts[goal["met"]]]
        for goal in goals
    ]  # fmt: skip
    return _table(("bench", "measure", "found", "goal", "unit", ""), rows)


def _bounds(goals: list[dict[str, Any]]) -> str:
    """What is known of those that were missed."""
    missed = [goal["name"] for goal in goals if goal["met"] is False]
    known = [text for pattern, text in WHAT_BOUNDS if any(re.search(pattern, name) for name in missed)]
    return "\n\n".join(["### What bounds those that were missed", *known]) if known else ""


def _rows(rows: list[dict[str, Any]]) -> str:
    ranks = ("p50", "p90", "p99", "p99.9", "max")
    cells = []
    for row in rows:
        shown = [_number(row.get(rank)) if row["n"] > 1 or rank == "p50" else "" for rank in ranks]
        cells.append([row["name"], row["wait"], row["unit"], f"{row['n']:,}" if row["n"] else "", *shown, row["note"]])
    return _table(("measure", "wait", "unit", "n", *ranks, ""), cells)


def _verdict(verdict: dict[str, Any]) -> str:
    counts = ", ".join(f"{verdict[key]} {key}" for key in BREACHES)
    return f"Of {verdict['operations']:,} acknowledged operations: {counts}."


def _number(value: float | None) -> str:
    """Four digits at most, or as many as the number has before its point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)])
