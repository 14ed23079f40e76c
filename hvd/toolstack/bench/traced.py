"""What a trace costs whom it is taken of: the ring's figures while one runs, in turns with those without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hvd.toolstack.bench.disks import disk_domain
from hvd.toolstack.bench.figures import Figure, ratio
from hvd.toolstack.bench.measured import MeasuredDomain, Pair
from hvd.toolstack.bench.run import ROUNDS, Run, in_turns
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.trace.session import TraceSession
from hvd.transport.histogram import Histogram
from hvd.transport.messages import DeviceConfig

ECHO, CALLER = "traced-echo", "traced-caller"
DEADLINE_S = 60.0
DEPTH = 32
TURN_MIN_NS = 200_000_000
"""A trace reads what was recorded ten times a second: a turn has two such looks at least."""


def measure_traced(run: Run, cluster: Cluster, pair: Pair, part: float) -> list[Figure]:
    """All domains traced as `hvd trace` does it, its reader at work beside them; no file is written."""
    figures = _round_trips(run, cluster, part / 2)
    return [*figures, *_throughput(run, cluster, pair, part / 2)]


@contextlib.contextmanager
def traced(cluster: Cluster) -> Iterator[None]:
    """Everybody, while the block runs."""
    session = TraceSession(cluster.connection, [])
    session.start()
    try:
        yield
    finally:
        session.stop()


def _round_trips(run: Run, cluster: Cluster, part: float) -> list[Figure]:
    driver = cluster.create(disk_domain(ECHO, cpus=[run.there]))
    driver.wait_ready(DEADLINE_S)
    caller = MeasuredDomain(cluster, CALLER, run.here, (DeviceConfig("echo", 0, ECHO),))

    def untraced(for_ns: int) -> Histogram:
        return caller.times("echo", for_ns=max(for_ns, TURN_MIN_NS))

    def with_trace(for_ns: int) -> Histogram:
        with traced(cluster):
            return untraced(for_ns)

    contenders = {"untraced": untraced, "traced": with_trace}
    times = in_turns(run, "ring, traced and not", contenders, run.share_ns(part))
    caller.domain.destroy()
    driver.destroy()
    name, beside = "ring round trip, 64 bytes, both hot", "in turns with the line above"
    without = Figure.timed(f"{name}, beside the traced", times["untraced"], wait="adaptive")
    figure = Figure.timed(f"{name}, traced", times["traced"], wait="adaptive", note=beside)
    return [without, figure, ratio(f"{name}: traced / untraced", figure, without, most=1.1)]


def _throughput(run: Run, cluster: Cluster, pair: Pair, part: float) -> list[Figure]:
    turn_ns = max(run.share_ns(part) // (2 * ROUNDS), TURN_MIN_NS)
    rates: dict[str, list[float]] = {"untraced": [], "traced": []}
    for number in range(ROUNDS):
        for kind, around in (("untraced", contextlib.nullcontext()), ("traced", traced(cluster))):
            run.tell(f"ring throughput, {kind}, round {number + 1} of {ROUNDS}")
            with around:
                rates[kind].append(pair.per_second("ask", "serve", turn_ns, DEPTH) / 1e6)
    name = f"ring throughput, {DEPTH} in flight, one by one"
    without, figure = (
        Figure(f"{name}, {what}", "million/s", rates[kind], wait="adaptive")
        for kind, what in (("untraced", "beside the traced"), ("traced", "traced"))
    )
    return [without, figure, ratio(f"{name}: traced / untraced", figure, without, least=0.9)]
