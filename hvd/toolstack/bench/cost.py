"""What being in a domain costs: system calls of a hot round trip, and the same work inside and outside."""

from __future__ import annotations

import statistics
import time

from hvd.toolstack.bench.figures import Figure, Goal, absent, value
from hvd.toolstack.bench.measured import SPIN_NS, MeasuredDomain, Pair
from hvd.toolstack.bench.run import Run, pinned
from hvd.toolstack.cluster import Cluster
from hvd.transport._native import Instructions, Walk, compute, count_system_calls

TRACED_NS = 200_000_000
SETTLE_S = 0.1
CHUNK_NS = 50_000_000
"""CPU time of one piece of work."""
TURNS_MIN = 5
WALK_LINES = 1 << 20
"""64 MiB: more than any cache."""


def system_calls_per_round_trip(run: Run, pair: Pair) -> list[Figure]:
    """Both ends are traced one after the other while they go on hot; 0 is 0 of hundreds of thousands of round trips."""
    run.tell("counting system calls")
    for_ns = 2 * TRACED_NS + int(4 * SETTLE_S * 1e9)
    pids = {"caller": pair.caller.pid, "answerer": pair.answerer.pid}
    pair.answerer.order("answer", spin_ns=SPIN_NS["spin"])
    pair.caller.order("call", for_ns=for_ns, spin_ns=SPIN_NS["spin"])
    time.sleep(SETTLE_S)
    name = "system calls per hot round trip"
    try:
        counts = {end: count_system_calls(pid, TRACED_NS) for end, pid in pids.items()}
    except OSError as error:
        return [absent(name, f"domains may not be traced here: {error.strerror}")]
    finally:
        pair.caller.result()
        pair.answerer.result()
    note = ", ".join(f"{end}: {count}" for end, count in counts.items()) + f" in {TRACED_NS / 1e9:g} s of each"
    return [value(name, "calls", float(max(counts.values())), Goal("p50", 0.0), note=note)]


def cost_of_a_domain(run: Run, cluster: Cluster, total_ns: int) -> list[Figure]:
    """Known work inside a domain and in this process, in turns on one CPU; medians compared."""
    domain = MeasuredDomain(cluster, "worker", run.here, off=("seccomp",))  # which keeps it from the counter
    outside, figures = _Outside(), []
    for kind, label in (("compute", "computing"), ("walk", "walking through 64 MiB")):
        steps = outside.steps_in(kind, CHUNK_NS)
        domain.do("work", kind=kind, steps=steps, lines=WALK_LINES)
        turns = max(TURNS_MIN, total_ns // (4 * CHUNK_NS))
        inside_ns, outside_ns, counted = [], [], []
        for turn in range(turns):
            run.tell(f"{label}, inside and outside, {turn + 1} of {turns}")
            with pinned(run.here):
                spent_ns, outside_count = outside.work(kind, steps)
            result = domain.do("work", kind=kind, steps=steps, lines=WALK_LINES)
            outside_ns.append(spent_ns)
            inside_ns.append(result["cpu_ns"])
            if outside_count and result["instructions"]:
                counted.append((result["instructions"] / outside_count - 1) * 100)
        more = (statistics.median(inside_ns) / statistics.median(outside_ns) - 1) * 100
        name = f"{label}: CPU time in a domain, more than outside"
        figures.append(value(name, "%", more, Goal("p50", 1.0), note=f"medians of {turns} turns on one CPU"))
        figures.append(_instructions(label, counted))
    domain.domain.destroy()
    return figures


def _instructions(label: str, counted: list[float]) -> Figure:
    name = f"{label}: instructions in a domain, more than outside"
    if not counted:
        return absent(name, "this machine lends no instruction counter")
    return Figure(name, "%", counted, (Goal("p50", 1.0),))


class _Outside:
    """The same work in this process."""

    def __init__(self) -> None:
        self._walk = Walk(WALK_LINES)
        self._instructions = Instructions()

    def work(self, kind: str, steps: int) -> tuple[int, int]:
        """CPU time in nanoseconds, and instructions or 0."""
        counted, start_ns = self._instructions.read(), time.thread_time_ns()
        if kind == "walk":
            self._walk.walk(steps)
        else:
            compute(steps)
        return time.thread_time_ns() - start_ns, self._instructions.read() - counted

    def steps_in(self, kind: str, for_ns: int) -> int:
        """About as many as take so long."""
        steps = 100_000
        while True:
            spent_ns, _ = self.work(kind, steps)
            if spent_ns > for_ns // 10:
                return int(steps * for_ns / spent_ns)
            steps *= 4
