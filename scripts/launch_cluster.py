#!/usr/bin/env python3
"""Starts the cluster that a file describes, waits until every domain is ready, and stays with it until Ctrl-C.

Examples:
  .venv/bin/python scripts/launch_cluster.py examples/cockpit/cockpit.toml
  .venv/bin/python scripts/launch_cluster.py cockpit.toml --for 10 --json
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

try:
    from hvd.toolstack.cli.output import BAD_INPUT, FAILED, print_error, print_json, print_line, print_table
except ModuleNotFoundError:
    sys.exit("launch_cluster.py: hvd is not installed for this Python: run scripts/setup.sh, then use .venv/bin/python")
from hvd.toolstack.cli.durations import seconds_argument
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.look import HEADINGS, row
from hvd.toolstack.cli.power import tell
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import BadInput, Cluster, NotRunning
from hvd.toolstack.config import ConfigError
from hvd.transport.errors import HvdError


def main() -> int:
    options = _options()
    try:
        with ended_by_signals():
            cluster = Cluster.load(options.file, options.run_dir)
            with Progress(quiet=options.json) as progress:
                cluster.start(options.deadline, tell=progress)
            with cluster:
                _stay(cluster, options)
    except Ended:
        return 0
    except HvdError as error:
        print_error(str(error), as_json=options.json, kind=type(error).__name__)
        return BAD_INPUT if isinstance(error, ConfigError | BadInput) else FAILED
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a cluster file")
    parser.add_argument(
        "--for", dest="seconds", type=seconds_argument, metavar="SECONDS", help="power off after this time"
    )
    parser.add_argument(
        "--deadline",
        type=seconds_argument,
        default=30.0,
        metavar="SECONDS",
        help="how long domains may take to be ready",
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="the cluster's directory (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document a line")
    return parser.parse_args()


def _stay(cluster: Cluster, options: argparse.Namespace) -> None:
    infos = list(cluster.infos().values())
    if options.json:
        print_json({"run_dir": str(cluster.run_dir), "domains": [info.as_dict() for info in infos]})
    else:
        print_table(HEADINGS, [row(info) for info in infos])
        print_line(f"running in {cluster.run_dir}; Ctrl-C powers off")
    until = None if options.seconds is None else time.monotonic() + options.seconds
    with contextlib.suppress(Ended, NotRunning), cluster.events() as events:
        while (event := events.next_until(until)) is not None:
            tell(event, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
