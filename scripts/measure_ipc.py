#!/usr/bin/env python3
"""Starts the cluster that a file describes (without one: dom0 alone) and measures in it what hvd promises of its IPC.

The ring between two domains hot and asleep (against a bare C eventfd ping-pong in the same run), a guest's disk, a
domain's creation, `hvd up` itself, and a driver domain killed again and again under load with a checker that looks for
lost blocks. The measuring domains are added to the cluster's own, which run on. Exit status 1 when a goal is not met.

Examples:
  .venv/bin/python scripts/measure_ipc.py
  .venv/bin/python scripts/measure_ipc.py examples/cockpit/cockpit.toml --kills 20
  .venv/bin/python scripts/measure_ipc.py --json > figures.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

try:
    from hvd.toolstack.bench.births import measure_births
except ModuleNotFoundError:
    sys.exit("measure_ipc.py: hvd is not installed for this Python: run scripts/setup.sh, then use .venv/bin/python")
from hvd.toolstack.bench.block import measure_block
from hvd.toolstack.bench.boots import measure_boots
from hvd.toolstack.bench.figures import HEADINGS, Figure, as_object
from hvd.toolstack.bench.machine_facts import machine_facts
from hvd.toolstack.bench.recovery import measure_recovery
from hvd.toolstack.bench.ring import measure_round_trips
from hvd.toolstack.bench.run import Run, cpus_from
from hvd.toolstack.cli.durations import count_argument, seconds_argument
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import BAD_INPUT, FAILED, print_error, print_json, print_line, print_table
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config import ConfigError
from hvd.toolstack.faults.checker import Verdict
from hvd.transport.errors import HvdError

INTERRUPTED = 130


def main() -> int:
    options = _options()
    facts = machine_facts()
    try:
        with ended_by_signals():
            figures, verdict = _measure(options)
    except Ended:
        return INTERRUPTED
    except HvdError as error:
        print_error(str(error), as_json=options.json, kind=type(error).__name__)
        return BAD_INPUT if isinstance(error, ConfigError) else FAILED
    _show(options, facts, figures, verdict)
    return 0 if verdict.intact and all(figure.met for figure in figures) else FAILED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="a cluster file (default: dom0 alone)")
    parser.add_argument(
        "--ring", type=seconds_argument, default=5.0, metavar="SECONDS", help="how long the ring is measured"
    )
    parser.add_argument(
        "--requests", type=count_argument, default=10_000, metavar="N", help="4 KiB reads and writes of a guest's disk"
    )
    parser.add_argument("--births", type=count_argument, default=50, metavar="N", help="domains created")
    parser.add_argument("--boots", type=count_argument, default=10, metavar="N", help="times `hvd up` is run")
    parser.add_argument(
        "--kills", type=count_argument, default=100, metavar="N", help="times the driver domain is killed"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> tuple[list[Figure], Verdict]:
    cluster = Cluster.load(options.file) if options.file else Cluster.build()
    with tempfile.TemporaryDirectory(prefix="hvd-measure-") as name, Progress(quiet=options.json) as progress:
        directory = Path(name)
        boots = measure_boots(directory, options.boots, progress)
        cluster.start(tell=progress)
        with cluster:
            progress("the ring")
            figures = measure_round_trips(Run(1, options.ring, cpus_from(None), progress), cluster, 1.0)
            progress("a guest's disk")
            figures += measure_block(cluster, directory, options.requests)
            figures += measure_births(cluster, directory, options.births, progress)
            recovery, verdict = measure_recovery(cluster, directory, options.kills, progress)
    return [*figures, *boots, *recovery], verdict


def _show(options: argparse.Namespace, facts: dict[str, str], figures: list[Figure], verdict: Verdict) -> None:
    if options.json:
        print_json(as_object(facts, figures, verdict))
        return
    print_line("machine: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    print_table(HEADINGS, [figure.as_row() for figure in figures])
    for line in verdict.lines():
        print_line(line)


if __name__ == "__main__":
    sys.exit(main())
