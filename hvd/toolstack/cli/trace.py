"""The command that traces."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import print_json, print_line
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import Cluster

LOOK_S = 0.5
WHERE = "open it at https://ui.perfetto.dev"


def trace(output: Path, duration_s: float | None, names: list[str], *, as_json: bool) -> None:
    """Trace until the time is over, a signal asks to end, or the machine stops; then write the file."""
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress:
        traced = cluster.trace(output, domains=names)
        with ended_by_signals(), traced:
            until = None if duration_s is None else time.monotonic() + duration_s
            try:
                while until is None or time.monotonic() < until:
                    left = LOOK_S if until is None else max(0.0, min(LOOK_S, until - time.monotonic()))
                    if traced.session.wait(left):
                        break
                    progress(f"tracing{'' if until is not None else ', Ctrl-C ends it'}: {traced.session.progress()}")
            except Ended:
                pass
            progress("writing the trace")
    if as_json:
        print_json(traced.summary)
    else:
        for line in lines(traced.summary):
            print_line(line)


def lines(summary: dict[str, Any]) -> list[str]:
    """What people want to know of a trace."""
    records = sum(track["records"] for track in summary["tracks"])
    took = f"{records:,} records in {summary['duration_s']:.1f} s"
    said = [f"{summary['file']}: {took}, {summary['flows']:,} flows; {WHERE}"]
    if summary["ended_early"]:
        said.append(f"it ended early: {summary['ended_early']}")
    for track in summary["tracks"]:
        whose = f"{track['name']}, incarnation {track['incarnation']}" if track["incarnation"] else track["name"]
        if track["spoiled"]:
            torn, senseless = track["torn"], track["senseless"]
            said.append(f"{whose} wrote over its buffer: {torn:,} records torn, {senseless:,} senseless")
        if track["lost"]:
            said.append(f"{whose}: {track['lost']:,} records were overwritten before they were read")
    if summary["undrawn"]:
        said.append(f"{summary['undrawn']:,} requests are not drawn: too many were in flight at a time")
    return said
