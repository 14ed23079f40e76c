#!/usr/bin/env python3
"""Starts the cluster that a file describes and kills its domains with SIGKILL at random moments, one after another.

Prints how long it took until each death was certain and until its successor was ready. Exit status 1 when a domain did
not come back. The same seed kills the same domains after the same pauses. Unless --keep-limits is given the victims'
crash-loop limits are lifted: they would end the run after a few kills.

Examples:
  .venv/bin/python scripts/inject_faults.py examples/cockpit/cockpit.toml
  .venv/bin/python scripts/inject_faults.py cockpit.toml --kills 100 --victim storage --seed 7 --interval 0.02
  .venv/bin/python scripts/inject_faults.py cockpit.toml --json > faults.json
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    from hvd.toolstack.cli.output import BAD_INPUT, FAILED, print_error, print_json, print_line, print_table
except ModuleNotFoundError:
    sys.exit("inject_faults.py: hvd is not installed for this Python: run scripts/setup.sh, then use .venv/bin/python")
from hvd.toolstack.cli.durations import count_argument, seconds_argument
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.cluster.configuration import plan_of
from hvd.toolstack.config import ClusterConfig, ConfigError, load
from hvd.toolstack.config.problems import Problem, shown
from hvd.toolstack.faults.killer import Killer, Recovery, percentiles
from hvd.transport.errors import HvdError
from hvd.transport.ids import DOM0

INTERRUPTED = 130


def main() -> int:
    options = _options()
    try:
        with ended_by_signals():
            recoveries = _inject(options)
    except Ended:
        return INTERRUPTED
    except HvdError as error:
        print_error(str(error), as_json=options.json, kind=type(error).__name__)
        return BAD_INPUT if isinstance(error, ConfigError) else FAILED
    _show(options, recoveries)
    return 0 if all(recovery.recovered for recovery in recoveries) else FAILED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a cluster file")
    parser.add_argument("--kills", type=count_argument, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument(
        "--victim", action="append", metavar="NAME", help="kill this one only; may be repeated (default: all but dom0)"
    )
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    parser.add_argument(
        "--interval",
        type=seconds_argument,
        default=0.05,
        metavar="SECONDS",
        help="mean pause before a kill (default: 0.05)",
    )
    parser.add_argument(
        "--deadline",
        type=seconds_argument,
        default=30.0,
        metavar="SECONDS",
        help="how long a domain may take to be ready",
    )
    parser.add_argument(
        "--keep-limits", action="store_true", help="leave the crash-loop limits of the file as they are"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    return options


def _inject(options: argparse.Namespace) -> list[Recovery]:
    config = load(options.file)
    _check_victims(options.victim or [], config)
    cluster = Cluster(plan_of(config if options.keep_limits else _without_limits(config)))
    with Progress(quiet=options.json) as progress:
        cluster.start(options.deadline, tell=progress)
        with cluster:
            guests = [domain for domain in cluster.domains() if domain.domid != DOM0]
            victims = [cluster.domain(name) for name in options.victim] if options.victim else guests
            killer = Killer(
                cluster, victims, seed=options.seed, interval_s=options.interval, deadline_s=options.deadline
            )
            recoveries = list(killer.run(options.kills, progress))
            if all(recovery.recovered for recovery in recoveries):
                cluster.wait_ready(options.deadline, tell=progress)  # whoever else fell over meanwhile
            return recoveries


def _check_victims(names: list[str], config: ClusterConfig) -> None:
    """ConfigError when one of them is none of the file's domains."""
    known = [domain.name for domain in config.domains]
    unknown = [name for name in names if name not in known]
    if unknown:
        expected, hint = "a domain of the file", f"there are: {', '.join(known)}"
        raise ConfigError([Problem("command line", "--victim", expected, shown(name), hint) for name in unknown])


def _without_limits(config: ClusterConfig) -> ClusterConfig:
    domains = (replace(domain, restart=replace(domain.restart, limit=0)) for domain in config.domains)
    return replace(config, domains=tuple(domains))


def _show(options: argparse.Namespace, recoveries: list[Recovery]) -> None:
    figures = {
        "detected_ms": percentiles([r.detected_ms for r in recoveries if r.detected_ms is not None]),
        "ready_ms": percentiles([r.ready_ms for r in recoveries if r.ready_ms is not None]),
    }
    lost = [recovery for recovery in recoveries if not recovery.recovered]
    if options.json:
        print_json({"file": str(options.file), "seed": options.seed, "kills": [r.as_dict() for r in recoveries],
                    "lost": len(lost), **figures})  # fmt: skip
        return
    victims = sorted({recovery.victim for recovery in recoveries})
    counts = ", ".join(f"{name} {sum(r.victim == name for r in recoveries)}" for name in victims)
    print_line(f"{len(recoveries)} kills (seed {options.seed}): {counts}; did not come back: {len(lost)}")
    rows = [_row(what, figures[key]) for what, key in (("death certain", "detected_ms"), ("ready again", "ready_ms"))]
    print_table(("milliseconds after SIGKILL", "p50", "p90", "p99", "max"), rows)
    for recovery in lost:
        print_line(f"{recovery.victim} did not come back from kill {recovery.number}: {recovery.outcome}")


def _row(what: str, figures: dict[str, Any]) -> list[str]:
    return [what, *(f"{figures[key]:8.1f}" if key in figures else "-" for key in ("p50", "p90", "p99", "max"))]


if __name__ == "__main__":
    sys.exit(main())
