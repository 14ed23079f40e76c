"""What a domain that wants everything costs: a pair on another CPU, in turns with it, and the broker its memory."""

from __future__ import annotations

import time
from pathlib import Path

from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.measured import Pair
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.toolstack.config.names import DOM0_NAME
from hvd.transport.histogram import Histogram
from hvd.transport.messages import DomainConfig, RestartPolicy

KERNEL = "hvd:nuisance"
WAYS = ("spins", "storms", "prints", "calls", "crowds", "fills_store", "watches", "transacts", "grants", "ports",
        "allocates", "forks")  # fmt: skip
"""What the domain does; see domains/programs/nuisance.py."""
FULL = 4
"""Domains that fill every table at once."""
ROUNDS = 9
THINK_NS = 200_000
SLOWER_MOST, GROWTH_MOST_MIB = 1.2, 4.0
DEADLINE_S = 30.0


def measure_fairness(run: Run) -> list[Figure]:
    """In a cluster of its own: a pair on one CPU, each nuisance on the other; then some that fill every quota.

    Domain 0, which serves all consoles, is kept off the pair's CPU, as one does who wants it for the pair.
    """
    dom0 = DomainConfig(DOM0_NAME, "hvd:dom0", cpus=[run.here], driver_domain=True)
    with Cluster.build([dom0], name="bench-fairness") as cluster:
        pair = Pair(cluster, "pair", run.there, run.there)
        figures = [figure for way in WAYS for figure in _beside(run, cluster, pair, way)]
        pair.destroy()
        return [*figures, _growth(run, cluster)]


def _beside(run: Run, cluster: Cluster, pair: Pair, way: str) -> list[Figure]:
    """The pair alone (the nuisance is paused) and beside it, in turns; the two of a round are set against each other.

    What other work does to the machine for a moment is in one round, and would be the 99th percentile of all of them.
    """
    alone, beside, slower = Histogram(), Histogram(), []
    turn_ns = run.share_ns(1 / len(WAYS)) // (2 * ROUNDS)
    nuisance = _create(cluster, way, run.here)
    for number in range(ROUNDS):
        run.tell(f"{way}: round {number + 1} of {ROUNDS}")
        _run_on(nuisance)
        with_it = pair.call(turn_ns, "sleep", think_ns=THINK_NS)
        _hold(nuisance)
        without = pair.call(turn_ns, "sleep", think_ns=THINK_NS)
        slower.append(with_it.percentile(99) / without.percentile(99))
        beside.add(with_it)
        alone.add(without)
    nuisance.destroy()
    nuisance.wait_gone(DEADLINE_S)
    shown = [
        Figure.timed(f"event channel, both asleep on one CPU, beside one that {way}", beside, wait="sleep"),
        Figure.timed(f"event channel, both asleep on one CPU, without one that {way}", alone, wait="sleep"),
    ]
    return [*shown, Figure(f"a pair beside one that {way} / alone, p99", "×", slower, (Goal("p50", SLOWER_MOST),))]


def _growth(run: Run, cluster: Cluster) -> Figure:
    """The broker's own memory by which it has grown for each domain that has filled all its quotas."""
    run.tell(f"{FULL} domains that fill every quota")
    before = _own_mib(cluster)
    nuisances = [_create(cluster, "fills_all", run.here, f"-{number}") for number in range(FULL)]
    grown = (_own_mib(cluster) - before) / FULL
    for nuisance in nuisances:
        nuisance.destroy()
    return value("the broker grows, for each domain whose quotas are full", "MiB", grown, Goal("p50", GROWTH_MOST_MIB))


def _create(cluster: Cluster, way: str, cpu: int, number: str = "") -> Domain:
    kind = "program" if way == "forks" else "guest"
    config = DomainConfig(f"one-that-{way.replace('_', '-')}{number}", KERNEL, args=[way], cpus=[cpu], sandbox=kind,
                          on_crash="restart", restart=RestartPolicy(limit=0))  # fmt: skip
    nuisance = cluster.create(config)
    nuisance.wait_ready(DEADLINE_S)
    return nuisance


def _run_on(nuisance: Domain) -> None:
    if nuisance.state is DomainState.PAUSED:
        nuisance.unpause()


def _hold(nuisance: Domain) -> None:
    """Between its deaths, if it dies of what it does."""
    until = time.monotonic() + DEADLINE_S
    while nuisance.state is not DomainState.RUNNING and time.monotonic() < until:
        time.sleep(0.01)
    nuisance.pause()


def _own_mib(cluster: Cluster) -> float:
    """Without its journal, a file of a size that does not change."""
    rollup = Path(f"/proc/{cluster.info()['broker_pid']}/smaps_rollup").read_text()
    return next(int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
