"""What a domain that wants everything costs: a pair on another CPU, in turns with it, and the broker its memory."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

from hvd.toolstack.bench import strangers
from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.measured import Pair
from hvd.toolstack.bench.peers.peer import CPeer
from hvd.toolstack.bench.run import Run
from hvd.toolstack.bench.strangers import Stranger
from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.toolstack.config.names import DOM0_NAME
from hvd.transport._native import PingPong
from hvd.transport.histogram import Histogram
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig, RestartPolicy

KERNEL = "hvd:nuisance"
WAYS = ("spins", "storms", "prints", "calls", "bursts", "crowds", "reads_no_replies", "reads_no_descriptors",
        "fills_store", "watches", "transacts", "grants", "ports", "allocates", "forks")  # fmt: skip
"""What the domain does; see domains/programs/nuisance.py."""
FULL = 4
"""Domains that fill every table at once."""
ROUNDS, THINK_NS = 7, 50_000
"""So that a 99th percentile is of some thousand round trips: of a few hundred it is what two or three of them met."""
SETTLE_NS = 20_000_000
"""Ahead of each turn, uncounted: to let the nuisance run, or to pause it, is the hypervisor's work and for us."""
WEIGHT = 3.5
"""Of the duration that others have: turns of 0.2 s, where they are 12 s."""
SLOWER_MOST, GROWTH_MOST_MIB = 1.2, 4.0
DEADLINE_S = 30.0


def measure_fairness(run: Run) -> list[Figure]:
    """In a cluster of its own: a pair on one CPU, each nuisance on the other; then some that fill every quota.

    Domain 0, which serves all consoles, is kept off the pair's CPU, as one does who wants it for the pair. The control:
    the pair, and a ping-pong in C that hvd has no part in, beside processes that are no domains.
    """
    dom0 = DomainConfig(DOM0_NAME, "hvd:dom0", cpus=[run.here], driver_domain=True)
    with Cluster.build([dom0], name="bench-fairness") as cluster:
        pair = Pair(cluster, "pair", run.there, run.there)
        figures = [figure for way in WAYS for figure in _beside_nuisance(run, cluster, pair, way)]
        figures += [figure for way in strangers.WAYS for figure in _beside_stranger(run, pair, way)]
        pair.destroy()
        return [*figures, _growth(run, cluster)]


def _beside_nuisance(run: Run, cluster: Cluster, pair: Pair, way: str) -> list[Figure]:
    nuisance = _create(cluster, way, run.here)
    slower, beside, alone = _in_turns(
        run, way, lambda: _run_on(nuisance), lambda: _hold(nuisance), lambda for_ns: _call(pair, for_ns)
    )
    nuisance.destroy()
    nuisance.wait_gone(DEADLINE_S)
    return [
        Figure.timed(f"event channel, both asleep on one CPU, beside one that {way}", beside, wait="sleep"),
        Figure.timed(f"event channel, both asleep on one CPU, without one that {way}", alone, wait="sleep"),
        Figure(f"a pair beside one that {way} / alone, p99", "×", slower, (Goal("p50", SLOWER_MOST),)),
    ]


def _beside_stranger(run: Run, pair: Pair, way: str) -> list[Figure]:
    """How much slower the same pair is, and two processes of bare C."""
    bare = CPeer(PingPong.EVENTFD, run.there, run.there)
    calls: dict[str, Callable[[int], Histogram]] = {
        "a pair": lambda for_ns: _call(pair, for_ns),
        "C eventfd ping-pong": lambda for_ns: bare.times(for_ns, THINK_NS),
    }
    figures = []
    with Stranger(way, run.here) as stranger:
        for name, call in calls.items():
            slower, _, _ = _in_turns(run, f"{name}, a process that {way}", stranger.go_on, stranger.hold, call)
            figures.append(Figure(f"{name} beside a process that {way} / alone, p99", "×", slower, note="no domain"))
    return figures


def _in_turns(
    run: Run, what: str, run_on: Callable[[], None], hold: Callable[[], None], call: Callable[[int], Histogram]
) -> tuple[list[float], Histogram, Histogram]:
    """Round trips beside it, and alone (it is held), in turns; the two of a round are set against each other.

    What other work does to the machine for a moment is in one round, and would be the 99th percentile of all of them.
    """
    alone, beside, slower = Histogram(), Histogram(), []
    turn_ns = run.share_ns(WEIGHT / len(WAYS)) // (2 * ROUNDS)
    for number in range(ROUNDS):
        run.tell(f"{what}: round {number + 1} of {ROUNDS}")
        run_on()
        with_it = _turn(call, turn_ns)
        hold()
        without = _turn(call, turn_ns)
        slower.append(with_it.percentile(99) / without.percentile(99))
        beside.add(with_it)
        alone.add(without)
    return slower, beside, alone


def _turn(call: Callable[[int], Histogram], turn_ns: int) -> Histogram:
    call(min(SETTLE_NS, turn_ns))
    return call(turn_ns)


def _call(pair: Pair, for_ns: int) -> Histogram:
    return pair.call(for_ns, "sleep", think_ns=THINK_NS)


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
    while True:
        try:
            nuisance.pause()
        except HypercallError as error:
            if error.errno != errno.EINVAL or time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def _own_mib(cluster: Cluster) -> float:
    """Without its journal, a file of a size that does not change."""
    rollup = Path(f"/proc/{cluster.info()['broker_pid']}/smaps_rollup").read_text()
    return next(int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
