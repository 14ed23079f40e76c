"""The benches by name: what each measures, for how long unless told otherwise, and what came of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvd.toolstack.bench.figures import SCHEMA, Figure, goals_of
from hvd.toolstack.bench.run import Run
from hvd.toolstack.faults.checker import Verdict

KILL_S, BLOCK_REQUEST_S = 0.1, 0.0005
"""About how long one of each takes: what turns a duration into counts."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one bench measured."""

    bench: str
    figures: list[Figure]
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """One of `hvd bench`'s."""

    about: str
    seconds: float
    """How long it measures unless told otherwise."""
    measure: Callable[[Run], tuple[list[Figure], Verdict | None]]


def _ipc(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.ipc import measure_ipc

    return measure_ipc(run), None


def _ring(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.ring import measure_ring

    return measure_ring(run), None


def _block(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.block import measure_block
    from hvd.toolstack.cluster import Cluster

    run.tell("a guest's disk")
    with tempfile.TemporaryDirectory(prefix="hvd-bench-") as name, Cluster.build(name="bench-block") as cluster:
        return measure_block(cluster, Path(name), max(int(run.duration_s / BLOCK_REQUEST_S), 100)), None


def _net(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.net import measure_net
    from hvd.toolstack.bench.net_deaths import measure_net_deaths
    from hvd.toolstack.bench.net_programs import measure_net_programs

    return [*measure_net(run), *measure_net_programs(run), *measure_net_deaths(run)], None


def _boot(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.boot import measure_boot

    return measure_boot(run), None


def _recovery(run: Run) -> tuple[list[Figure], Verdict]:
    from hvd.toolstack.bench.bit_flips import measure_bit_flips
    from hvd.toolstack.bench.broker_deaths import measure_broker_deaths
    from hvd.toolstack.bench.bystander import measure_bystander
    from hvd.toolstack.bench.kill_rates import measure_kill_rates
    from hvd.toolstack.bench.recovery import measure_recovery
    from hvd.toolstack.cluster import Cluster

    kills = run.kills_of(1.0, KILL_S)
    with tempfile.TemporaryDirectory(prefix="hvd-bench-") as name, Cluster.build(name="bench-recovery") as cluster:
        figures, verdict = measure_recovery(cluster, Path(name), kills, run.tell, run.seed)
    with tempfile.TemporaryDirectory(prefix="hvd-bench-") as name:
        rates, at_rates = measure_kill_rates(run, Path(name))
        beside, at_these = measure_bystander(run, Path(name))
        flips, at_flips = measure_bit_flips(run, Path(name))
    verdicts = [verdict, at_rates, at_these, at_flips]
    return [*figures, *rates, *beside, *flips, *measure_broker_deaths(run)], Verdict.total(verdicts)


def _scale(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.scale import measure_scale

    return measure_scale(run), None


def _fairness(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.fairness import measure_fairness

    return measure_fairness(run), None


def _hypercall(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.hypercall import measure_hypercall

    return measure_hypercall(run), None


def _store(run: Run) -> tuple[list[Figure], None]:
    from hvd.toolstack.bench.store import measure_store

    return measure_store(run), None


BENCHES: dict[str, Bench] = {
    "ipc": Bench("the event channel beside every other way between two processes, and what a domain costs", 40, _ipc),
    "ring": Bench("the ring: round trips, throughput, pages handed over", 20, _ring),
    "block": Bench("a guest's disk beside the same system calls in one process", 10, _block),
    "net": Bench("packets through a driver domain's switch: how many, round trips, rates, TCP, deaths", 150, _net),
    "boot": Bench("the machine, dom0, eight domains, one more, and the order of starts", 60, _boot),
    "recovery": Bench("driver domain and broker killed under load, and what it costs whom", 90, _recovery),
    "scale": Bench("200 domains and 1,000 channels", 15, _scale),
    "fairness": Bench("a pair beside a domain that wants everything; the broker at full quotas", 30, _fairness),
    "hypercall": Bench("hypercalls beside bare ZeroMQ", 10, _hypercall),
    "store": Bench("XenStore's socket, beside Xen's own daemons; 100,000 nodes and 10,000 watches", 20, _store),
}


def measure(name: str, run: Run) -> Outcome:
    """Run one bench."""
    figures, verdict = BENCHES[name].measure(run)
    return Outcome(name, figures, verdict)


def as_object(facts: dict[str, str], command: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A run as one JSON object; docs/performance.md is made from it."""
    rows = [{"bench": outcome.bench} | figure.as_dict() for outcome in outcomes for figure in outcome.figures]
    goals = [{"bench": outcome.bench} | goal for outcome in outcomes for goal in goals_of(outcome.figures)]
    told = {"schema": SCHEMA, "machine": facts, "command": command, "rows": rows, "goals": goals}
    verdicts = [outcome.verdict.as_dict() for outcome in outcomes if outcome.verdict is not None]
    return told | ({"verdict": verdicts[0]} if verdicts else {})
