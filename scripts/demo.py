#!/usr/bin/env python3
"""The story of hvd in one run: a cluster boots, is measured, its disk driver is killed again and again, nothing is
lost.

`scripts/demo.sh` sets everything up and then runs this. It starts examples/cockpit with images of its own in a
temporary directory, and leaves nothing behind.

Examples:
  scripts/demo.sh
  scripts/demo.sh --kills 100 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hvd.toolstack.bench.births import measure_births
from hvd.toolstack.bench.block import measure_block
from hvd.toolstack.bench.boots import measure_boots
from hvd.toolstack.bench.figures import Figure, as_object
from hvd.toolstack.bench.machine_facts import machine_facts
from hvd.toolstack.bench.recovery import measure_recovery
from hvd.toolstack.bench.ring import measure_round_trips
from hvd.toolstack.bench.run import Run, cpus_from
from hvd.toolstack.cli.durations import count_argument
from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.faults.checker import Verdict
from hvd.transport.errors import HvdError

COCKPIT = Path(__file__).resolve().parent.parent / "examples" / "cockpit"
WIDTH = 120
BOOTS, BIRTHS, RING_S, REQUESTS = 5, 20, 2.0, 5000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measured figures there as one JSON object")
    parser.add_argument("--kills", type=count_argument, default=30, metavar="N", help="times the disk driver is killed")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    facts = machine_facts()
    try:
        with ended_by_signals(), tempfile.TemporaryDirectory(prefix="hvd-demo-") as name:
            figures, verdict = tell(console, Path(name), options.kills)
    except Ended:
        return 130
    except HvdError as error:
        console.print(f"[red]the demo failed:[/] {error}")
        return 1
    console.print(figure_table(facts, figures))
    for line in verdict.lines():
        console.print(line)
    if options.json:
        options.json.write_text(json.dumps(as_object(facts, figures, verdict), indent=2) + "\n")
    console.print("Nothing acknowledged was lost." if verdict.intact else "[red]Acknowledged blocks were lost.[/]")
    return 0 if verdict.intact else 1


def tell(console: Console, directory: Path, kills: int) -> tuple[list[Figure], Verdict]:
    """The story, in order; each step says what it is about to do."""
    cockpit = prepare(directory)
    console.print(f"[bold]1.[/] hvd up, {BOOTS} times: machine, broker, zygote and dom0 from nothing")
    with console.status("booting") as status:
        boots = measure_boots(directory, BOOTS, status.update)
        console.print("[bold]2.[/] examples/cockpit: dom0, a disk driver domain, three guests: five processes")
        with Cluster.load(cockpit) as cluster:
            console.print(domain_table(cluster))
            console.print("[bold]3.[/] two domains and a shared ring between them: 64 bytes there and back")
            status.update("measuring the ring")
            figures = measure_round_trips(Run(1, RING_S, cpus_from(None), status.update), cluster, 1.0)
            console.print("[bold]4.[/] a guest's disk: frontend, ring, backend in another process, image")
            status.update("measuring the disk")
            figures += measure_block(cluster, directory, REQUESTS)
            console.print(f"[bold]5.[/] {BIRTHS} domains are created, one after the other")
            figures += measure_births(cluster, directory, BIRTHS, status.update)
            console.print(f"[bold]6.[/] a guest writes and reads without pause; its driver domain dies {kills} times")
            recovery, verdict = measure_recovery(cluster, directory, kills, status.update)
            console.print("   and the cockpit, meanwhile:")
            console.print(domain_table(cluster))
    return [*figures, *boots, *recovery], verdict


def prepare(directory: Path) -> Path:
    """A copy of the example with fresh images."""
    ignored = shutil.ignore_patterns("*.img", "__pycache__")
    copy = Path(shutil.copytree(COCKPIT, directory / "cockpit", ignore=ignored))
    subprocess.run([sys.executable, str(copy / "prepare.py")], check=True, stdout=subprocess.DEVNULL)
    return copy / "cockpit.toml"


def domain_table(cluster: Cluster) -> Table:
    """`hvd list` as a picture."""
    table = Table(show_edge=False, pad_edge=True)
    for heading in ("Domain", "domid", "process", "state", "restarts", "what it is"):
        table.add_column(heading)
    for domain in cluster.domains():
        info = domain.info()
        kind = "control domain" if info.domid == 0 else "driver domain" if info.driver_domain else "guest"
        table.add_row(info.name, str(info.domid), str(info.pid), str(info.state), str(info.restarts), kind)
    return table


def figure_table(facts: dict[str, str], figures: list[Figure]) -> Table:
    """Every figure, its percentiles and its goal."""
    table = Table(title="Measured just now", caption=", ".join(f"{key} {value}" for key, value in facts.items()))
    table.add_column("measure")
    table.add_column("unit")
    for heading in ("n", "p50", "p99"):
        table.add_column(heading, justify="right")
    table.add_column("goal")
    for figure in figures:
        goals = ", ".join(map(str, figure.goals))
        colour = "green" if figure.met else "yellow"
        cells = [f"{figure.percentiles[p]:.2f}" if p in figure.percentiles else "-" for p in ("p50", "p99")]
        table.add_row(figure.name, figure.unit, str(figure.n), *cells, f"[{colour}]{goals}[/]")
    return table


if __name__ == "__main__":
    sys.exit(main())
