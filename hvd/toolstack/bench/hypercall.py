"""Hypercalls: a domain's round trip to the broker beside bare ZeroMQ, and how many a second the broker carries out."""

from __future__ import annotations

from hvd.toolstack.bench.figures import Figure, Goal, ratio
from hvd.toolstack.bench.ipc import peer_figures, turns_of
from hvd.toolstack.bench.measured import MeasuredDomain
from hvd.toolstack.bench.peers.peer import How
from hvd.toolstack.bench.peers.table import DEALER_ROUTER, Field
from hvd.toolstack.bench.peers.zeromq import ZeroMqDealerRouter
from hvd.toolstack.bench.run import ROUNDS, Run, in_turns
from hvd.toolstack.cluster import Cluster
from hvd.transport.histogram import from_text

CALLERS = 8


def measure_hypercall(run: Run) -> list[Figure]:
    """In a cluster of its own. The broker runs where the scheduler puts it, as it does for users."""
    with Cluster.build(name="bench-hypercall") as cluster:
        callers = [MeasuredDomain(cluster, f"caller-{number}", run.cpus[number % len(run.cpus)])
                   for number in range(CALLERS)]  # fmt: skip
        return [*_round_trips(run, callers[0]), _sustained(run, callers)]


def _round_trips(run: Run, caller: MeasuredDomain) -> list[Figure]:
    field = Field(run.here, run.there)
    try:
        field.add(DEALER_ROUTER, How.WOKEN, ZeroMqDealerRouter)
        contenders = {"hypercall": lambda for_ns: caller.times("hypercall", for_ns=for_ns)} | turns_of(field, 0)
        times = in_turns(run, "round trips", contenders, run.share_ns(0.6))
    finally:
        field.close()
    ours = Figure.timed("hypercall round trip", times.pop("hypercall"), wait="woken", note="CURVE, checks, journal")
    peers = peer_figures(times, "round trip", {}, How.WOKEN)
    floor = peers[DEALER_ROUTER]
    return [ours, floor, ratio(f"hypercall / {DEALER_ROUTER} without CURVE", ours, floor, most=1.3)]


def _sustained(run: Run, callers: list[MeasuredDomain]) -> Figure:
    """All callers at once, each with one hypercall in flight."""
    samples, turn_ns = [], max(run.share_ns(0.4) // ROUNDS, 100_000_000)
    for number in range(ROUNDS):
        run.tell(f"{CALLERS} callers at once, round {number + 1} of {ROUNDS}")
        for caller in callers:
            caller.order("hypercall", for_ns=turn_ns)
        first, *rest = callers
        results = [first.result(turn_ns / 1e9), *(caller.result() for caller in rest)]
        samples.append(sum(from_text(result["times"]).count for result in results) / turn_ns * 1e9)
    note = f"{CALLERS} domains, one hypercall in flight each"
    return Figure("hypercalls carried out", "1/s", samples, (Goal("p50", least=15_000.0),), note)


