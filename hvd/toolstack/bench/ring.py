"""The ring between two domains: round trips awake and asleep, throughput, and pages handed over instead of copied."""

from __future__ import annotations

from functools import partial

from hvd.toolstack.bench.disks import disk_domain
from hvd.toolstack.bench.figures import Figure, Goal, absent, ratio, value
from hvd.toolstack.bench.measured import SPIN_NS, MeasuredDomain, Pair
from hvd.toolstack.bench.peers.peer import CPeer
from hvd.toolstack.bench.peers.table import C_EVENTFD, C_SPIN
from hvd.toolstack.bench.run import ROUNDS, Contender, Run, in_turns
from hvd.toolstack.bench.traced import measure_traced
from hvd.toolstack.cluster import Cluster
from hvd.transport._native import PingPong
from hvd.transport.histogram import Histogram
from hvd.transport.messages import DeviceConfig

ECHO, CALLER = "bench-echo", "bench-caller"
DEADLINE_S = 60.0
ASLEEP_NS = 1_000_000
"""Between two requests: longer than anybody polls, so that the driver domain sleeps when the next one comes."""
DEPTH = 32
BULK = {"64 KiB": 64 << 10, "256 KiB": 256 << 10, "1 MiB": 1 << 20, "4 MiB": 4 << 20}


def measure_ring(run: Run) -> list[Figure]:
    """In a cluster of its own."""
    with Cluster.build(name="bench-ring") as cluster:
        figures = measure_round_trips(run, cluster, 0.4)
        if run.one_cpu:
            return [*figures, absent("ring throughput", f"this process may use CPU {run.here} alone")]
        pair = Pair(cluster, "pair", run.here, run.there)
        figures += _throughput(run, pair)
        figures += _bulk(run, pair)
        figures += measure_traced(run, cluster, pair, 0.2)
        pair.destroy()
        return figures


def measure_round_trips(run: Run, cluster: Cluster, part: float) -> list[Figure]:
    """A guest's calls of its ring device, and a C ping-pong in turns with them."""
    driver = cluster.create(disk_domain(ECHO, cpus=[run.there]))
    driver.wait_ready(DEADLINE_S)
    caller = MeasuredDomain(cluster, CALLER, run.here, (DeviceConfig("echo", 0, ECHO),))
    eventfd, spin = (CPeer(kind, run.here, run.there) for kind in (PingPong.EVENTFD, PingPong.SPIN))
    awake: dict[str, Contender] = {"ring": lambda for_ns: caller.times("echo", for_ns=for_ns)}
    if not run.one_cpu:
        awake[C_SPIN] = lambda for_ns: spin.times(for_ns, 0)
    hot = in_turns(run, "ring, both hot", awake, run.share_ns(part / 2))
    contenders: dict[str, Contender] = {
        "ring": lambda for_ns: caller.times("echo", for_ns=for_ns, think_ns=ASLEEP_NS, spin_ns=SPIN_NS["sleep"]),
        C_EVENTFD: lambda for_ns: eventfd.times(for_ns, ASLEEP_NS),
    }
    asleep = in_turns(run, "ring, both asleep", contenders, run.share_ns(part / 2))
    caller.domain.destroy()
    driver.destroy()
    ours = Figure.timed("ring round trip, 64 bytes, both hot", hot.pop("ring"), (Goal("p50", 1.0),), wait="adaptive")
    slept = Figure.timed("ring round trip, 64 bytes, both asleep", asleep["ring"], wait="sleep")
    beside = "in turns with the line above"
    floor = Figure.timed(f"{C_EVENTFD}, both asleep", asleep[C_EVENTFD], wait="woken", note=beside)
    tail = None if not ours.p50 else ours.percentiles["p99"] / ours.p50
    return [
        ours,
        *(Figure.timed(f"{name}, hot", of_name, wait="polled", note=beside) for name, of_name in hot.items()),
        value("ring round trip, both hot: p99 / p50", "×", tail, Goal("p50", 3.0)),
        slept,
        floor,
        ratio(f"ring / {C_EVENTFD}, both asleep", slept, floor, most=1.25),
    ]


def _throughput(run: Run, pair: Pair) -> list[Figure]:
    turn_ns = run.share_ns(0.2) // (2 * ROUNDS)
    kinds = {"one by one": ("ask", "serve", 1.0), "in batches": ("ask_in_batches", "serve_in_batches", 3.0)}
    samples: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(ROUNDS):
        for kind, (ask, serve, _) in kinds.items():
            run.tell(f"ring throughput, {kind}, round {number + 1} of {ROUNDS}")
            samples[kind].append(pair.per_second(ask, serve, max(turn_ns, 20_000_000), DEPTH) / 1e6)
    return [
        Figure(f"ring throughput, {DEPTH} in flight, {kind}", "million/s", samples[kind], (Goal("p50", least=least),),
               wait="adaptive")
        for kind, (_, _, least) in kinds.items()
    ]  # fmt: skip


def _bulk(run: Run, pair: Pair) -> list[Figure]:
    figures, untouched = [], []
    for label, size in BULK.items():
        contenders = {
            "touched": partial(pair.hand_over, bytes_count=size, touching=True),
            "untouched": partial(pair.hand_over, bytes_count=size, touching=False),
            "memcpy": partial(_copy, pair, size),
        }
        times = in_turns(run, f"{label} handed over", contenders, run.share_ns(0.1))
        rate = {name: size / max(of_name.percentile(50), 1) for name, of_name in times.items()}
        touched = value(f"{label} handed over, every cache line read", "GB/s", rate["touched"], wait="spin")
        copied = value(f"{label} memcpy in one process", "GB/s", rate["memcpy"])
        handed = Figure.timed(f"{label} handed over, touched by neither end", times["untouched"], wait="spin")
        untouched.append(handed.p50 or 0.0)
        figures += [touched, copied, ratio(f"{label}: handed over / memcpy", touched, copied, least=0.9), handed]
    middle = sorted(untouched)[len(untouched) // 2]
    spread = max(abs(p50 / middle - 1) for p50 in untouched) * 100 if middle else None
    note = "from the middle one of the four sizes"
    return [*figures, value("hand-over without touching, farthest", "%", spread, Goal("p50", 20.0), note=note)]


def _copy(pair: Pair, size: int, for_ns: int) -> Histogram:
    return pair.caller.times("copy", for_ns=for_ns, bytes_count=size)
