"""A driver domain killed at a fixed rate: the share of its guest's throughput that is lost, and what a bystander feels.

What a guest completes in the moments after a kill is set against what it completed just before it, so that no drift of
the machine is taken for a loss. A pair calls each other meanwhile, in the same moments, on a CPU of its own.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.measured import SPIN_NS, Pair
from hvd.toolstack.bench.recovery import Death, Load, completed
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.faults.checker import Verdict
from hvd.transport.histogram import Histogram, from_text

KILLS = {10: 3, 2: 10, 1: 20}
"""Seconds between kills -> kills, of a run that is as long as this bench asks for."""
WHOLE_S = 90.0
LEAST = 2
"""A shorter run leaves out the rates that it has no time for, all but the last."""
WINDOW_NS = 400_000_000
"""How long before and after a kill is looked at: longer than a recovery, short enough to stay off the next kill."""
THINK_NS = 200_000
SLOWER_MOST = 1.2


@dataclass(frozen=True, slots=True)
class Window:
    """WINDOW_NS from a moment of CLOCK_MONOTONIC, and the pair's calls in it."""

    start: int
    calls: Histogram

    def count(self, times_ns: Sequence[int]) -> int:
        """How many of these moments lie in it."""
        return bisect_left(times_ns, self.start + WINDOW_NS) - bisect_left(times_ns, self.start)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill, the window before it and the one that it begins."""

    before: Window
    death: Death
    after: Window

    def lost(self, times_ns: Sequence[int], period_s: float) -> float:
        """Percent of what a period without it would have brought."""
        whole = self.before.count(times_ns)
        return 100 * (whole - self.after.count(times_ns)) / (whole * period_s * 1e9 / WINDOW_NS)


def measure_kill_rates(run: Run, directory: Path) -> tuple[list[Figure], Verdict]:
    """In a cluster of its own: both ends of a disk on one CPU, the pair on the other."""
    with Cluster.build(name="bench-rates") as cluster:
        pair = Pair(cluster, "pair", run.there, run.there)
        load = Load(cluster, directory, run.seed, spare=False, cpus=(run.here,))
        counts = _counts(run.duration_s)
        kills = {period_s: _kill_every(period_s, count, run, load, pair) for period_s, count in counts.items()}
        run.tell("checking what was written meanwhile")
        verdict = load.stop()
        answered = load.checker.times_ns
    figures = [_loss(period_s, some, answered) for period_s, some in kills.items()]
    return [*figures, *_bystander([kill for each in kills.values() for kill in each], verdict)], verdict


def _counts(duration_s: float) -> dict[int, int]:
    counts = {period_s: round(count * min(duration_s / WHOLE_S, 1.0)) for period_s, count in KILLS.items()}
    return {p: max(count, LEAST) for p, count in counts.items() if count >= LEAST or p == min(KILLS)}


def _kill_every(period_s: int, count: int, run: Run, load: Load, pair: Pair) -> list[Kill]:
    kills: list[Kill] = []
    deaths: list[Death] = []
    due = time.monotonic() + period_s
    with load.cluster.events() as events:
        for number in range(count):
            run.tell(f"driver domain killed every {period_s} s: kill {number + 1} of {count}")
            _wait_for(due - 1.5 * WINDOW_NS / 1e9)
            before = _look(pair)
            _wait_for(due)
            due += period_s
            after = _look(pair, lambda: deaths.append(load.kill_once(events)))
            kills.append(Kill(before, deaths[-1], after))
    return kills


def _wait_for(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


def _look(pair: Pair, strike: Callable[[], None] = lambda: None) -> Window:
    """The pair calls each other for a window, which a kill may begin."""
    start = time.monotonic_ns()
    pair.answerer.order("answer", spin_ns=SPIN_NS["sleep"])
    pair.caller.order("call", for_ns=WINDOW_NS, spin_ns=SPIN_NS["sleep"], think_ns=THINK_NS, computing=False)
    strike()
    calls = from_text(pair.caller.result(max(0.0, (start + WINDOW_NS - time.monotonic_ns()) / 1e9))["times"])
    pair.answerer.result()
    return Window(start, calls)


def _loss(period_s: int, kills: list[Kill], times_ns: Sequence[int]) -> Figure:
    """What is lost at this rate, against twice the time that a recovery took."""
    shares = [kill.lost(times_ns, period_s) for kill in kills]
    took_s = median((death.completed - death.killed) / 1e9 for death in completed([k.death for k in kills], times_ns))
    spread = stdev(shares) / len(shares) ** 0.5
    note = f"mean of {len(kills)} kills, ± {2 * spread:.2f} (95 %); a recovery took {took_s * 1e3:.1f} ms (p50)"
    name = f"throughput lost, driver domain killed every {period_s} s"
    return value(name, "%", fmean(shares), Goal("p50", 200 * took_s / period_s), note=note)


def _bystander(kills: list[Kill], verdict: Verdict) -> list[Figure]:
    """The pair on the other CPU, with a kill in its window and without one, just before: these two are compared."""
    without, beside = Histogram(), Histogram()
    for kill in kills:
        without.add(kill.before.calls)
        beside.add(kill.after.calls)
    shown = [
        Figure.timed("bystander: event channel, both asleep, a driver domain killed meanwhile", beside, wait="sleep"),
        Figure.timed("bystander: event channel, both asleep, no kill", without, wait="sleep"),
    ]
    slower = [kill.after.calls.percentile(99) / kill.before.calls.percentile(99) for kill in kills]
    return [
        *shown,
        Figure("bystander beside kills / without, p99", "×", slower, (Goal("p50", SLOWER_MOST),)),
        value("operations of the killed one's guest that failed", "", verdict.failed, Goal("p50", 0)),
    ]
