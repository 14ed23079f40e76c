"""The event channel between two domains beside every other way: hot, asleep, thinking, at a fixed rate; its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from hvd.toolstack.bench.cost import cost_of_a_domain, system_calls_per_round_trip
from hvd.toolstack.bench.figures import Figure, Goal, absent, ratio, value
from hvd.toolstack.bench.measured import Pair
from hvd.toolstack.bench.peers.peer import How
from hvd.toolstack.bench.peers.table import C_EVENTFD, C_SPIN, ICEORYX, PYTHON, ZEROMQ, Field
from hvd.toolstack.bench.run import Contender, Run, in_turns
from hvd.toolstack.cluster import Cluster
from hvd.transport.histogram import Histogram

CHANNEL = "event channel"
ASLEEP_NS = 1_000_000
"""The caller sleeps so long before each call: by then both ends, and the CPUs under them, are asleep."""
THINK_US = (10, 50, 200)
SPINNING, SHARING = ("adaptive", "spin", "sleep"), ("adaptive", "sleep")
"""On one CPU nobody would always spin: each round trip would be a time slice."""
RATE = 10_000
BLOCKING = f"{ZEROMQ}, blocking"
"""Back to back its sleeping end is the faster one, for its input/output threads need the CPUs."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answering end is."""

    name: str
    there: int


def measure_ipc(run: Run) -> list[Figure]:
    """In a cluster of its own."""
    with Cluster.build(name="bench-ipc") as cluster:
        figures = _across(run, cluster)
        pair = Pair(cluster, "shared", run.here, run.here)
        figures += _asleep(run, pair, Place("one CPU", run.here), 0.12, most=1.4)
        figures += _think_on_one_cpu(run, pair)
        pair.destroy()
        return figures + cost_of_a_domain(run, cluster, run.share_ns(0.1))


def _across(run: Run, cluster: Cluster) -> list[Figure]:
    if run.one_cpu:
        return [absent(f"{CHANNEL}, two CPUs", f"this process may use CPU {run.here} alone")]
    pair = Pair(cluster, "pair", run.here, run.there)
    figures = _hot(run, pair)
    figures += _asleep(run, pair, Place("two CPUs", run.there), 0.15, most=1.15)
    figures += _think(run, pair)
    figures += _at_rate(run, pair)
    figures += system_calls_per_round_trip(run, pair)
    pair.destroy()
    return figures


def _hot(run: Run, pair: Pair) -> list[Figure]:
    name, field = f"{CHANNEL}, both hot", Field(run.here, run.there)
    try:
        field.open(How.POLLED)
        field.add(BLOCKING, How.WOKEN, PYTHON[ZEROMQ])
        contenders = {CHANNEL: partial(pair.call, wait="spin")} | turns_of(field, 0)
        times = in_turns(run, "both hot", contenders, run.share_ns(0.25))
    finally:
        field.close()
    ours = Figure.timed(name, times.pop(CHANNEL), (Goal("p50", 0.8),), wait="spin")
    peers = peer_figures(times, "hot", {BLOCKING: How.WOKEN}, How.POLLED)
    nothing = Figure("", "µs", [])
    zeromq = min((peers[key] for key in (ZEROMQ, BLOCKING) if key in peers), key=lambda f: f.p50 or 0, default=nothing)
    return [
        ours,
        *peers.values(),
        *field.figures,
        ratio(f"{name} / {C_SPIN}", ours, peers[C_SPIN], most=4.0),
        ratio(f"{ICEORYX} / {name}", peers.get(ICEORYX, nothing), ours, least=10.0)
        if ICEORYX in peers
        else absent(f"{ICEORYX} / {name}", f"no figure of {ICEORYX}"),
        ratio(f"{ZEROMQ} / {name}", zeromq, ours, least=100.0, note="the faster of its two rows"),
    ]


def _asleep(run: Run, pair: Pair, where: Place, part: float, *, most: float) -> list[Figure]:
    name, field = f"{CHANNEL}, both asleep, {where.name}", Field(run.here, where.there)
    try:
        field.open(How.WOKEN)
        contenders = {CHANNEL: partial(pair.call, wait="sleep", think_ns=ASLEEP_NS)} | turns_of(field, ASLEEP_NS)
        times = in_turns(run, f"both asleep, {where.name}", contenders, run.share_ns(part))
    finally:
        field.close()
    ours = Figure.timed(name, times.pop(CHANNEL), wait="sleep")
    peers = peer_figures(times, f"asleep, {where.name}", {}, How.WOKEN)
    return [ours, *peers.values(), *field.figures, ratio(f"{name} / {C_EVENTFD}", ours, peers[C_EVENTFD], most=most)]


def _think(run: Run, pair: Pair) -> list[Figure]:
    """The caller computes between two calls; a round trip includes that."""
    figures: list[Figure] = []
    for think_us in THINK_US:
        figures += _thinking(run, pair, "two CPUs", think_us, SPINNING, part=0.06, most=1.2)
    return figures


def _think_on_one_cpu(run: Run, pair: Pair) -> list[Figure]:
    figures: list[Figure] = []
    for think_us in THINK_US:
        figures += _thinking(run, pair, "one CPU", think_us, SHARING, part=0.03, most=1.1)
    return figures


def _thinking(
    run: Run, pair: Pair, where: str, think_us: int, waits: Iterable[str], *, part: float, most: float
) -> list[Figure]:
    what = f"{CHANNEL}, {think_us} µs of thought, {where}"
    contenders = {wait: partial(pair.call, wait=wait, think_ns=think_us * 1000, computing=True) for wait in waits}
    times = in_turns(run, what, contenders, run.share_ns(part))
    rows = {wait: Figure.timed(what, of_wait, wait=wait) for wait, of_wait in times.items()}
    medians = {wait: think_us + (row.p50 or 0) for wait, row in rows.items()}
    best = min(of_wait for wait, of_wait in medians.items() if wait != "adaptive")
    note = "thought included: " + ", ".join(f"{wait} {of_wait:.1f} µs" for wait, of_wait in medians.items())
    name = f"{what}: adaptive / the better of the others"
    return [*rows.values(), value(name, "×", medians["adaptive"] / best, Goal("p50", most), note=note)]


def _at_rate(run: Run, pair: Pair) -> list[Figure]:
    run.tell(f"{RATE} calls a second")
    intended, sent = pair.call_at_rate(run.share_ns(0.05), "adaptive", 1_000_000_000 // RATE)
    name = f"{CHANNEL}, {RATE:,} calls/s"
    return [
        Figure.timed(f"{name}, from when each was due", intended, wait="adaptive", note="open loop"),
        Figure.timed(f"{name}, from when each was sent", sent, wait="adaptive", note="hides what had to queue"),
    ]


def turns_of(field: Field, think_ns: int) -> dict[str, Contender]:
    """The peers of a field as contenders."""

    def turn(name: str) -> Callable[[int], Histogram]:
        return lambda for_ns: field.peers[name].times(for_ns, think_ns)

    return {name: turn(name) for name in field.peers}


def peer_figures(times: dict[str, Histogram], state: str, others: dict[str, How], how: How) -> dict[str, Figure]:
    """A row a peer."""
    return {name: Figure.timed(f"{name}, {state}", each, wait=others.get(name, how)) for name, each in times.items()}
