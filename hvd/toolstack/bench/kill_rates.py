"""A driver domain killed at a fixed rate: the share of its guest's throughput that is lost.

What a guest completes in the moments after a kill is set against what it completed just before it, so that no drift of
the machine is taken for a loss.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.bench.recovery import Death, Load, completed
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.faults.checker import Verdict

KILLS = {10: 10, 2: 20, 1: 40}
"""Seconds between kills -> kills, of a run that is as long as this bench asks for."""
WHOLE_S = 90.0
LEAST = 10
"""A shorter run leaves out the rates that it has no time for so many kills at, all but the last. Of fewer, as who runs
it may choose, no goal is judged."""
FEWEST = 2
"""There is no interval of one."""
WINDOW_NS = 400_000_000
"""How long before and after a kill is looked at: longer than a recovery, short enough to stay off the next kill."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill, and two moments of CLOCK_MONOTONIC: when the window before it began, and the one that it begins."""

    before_ns: int
    death: Death
    after_ns: int

    def lost(self, times_ns: Sequence[int], period_s: float) -> float:
        """Percent of what a period without it would have brought."""
        whole, left = (_count(times_ns, start) for start in (self.before_ns, self.after_ns))
        return 100 * (whole - left) / (whole * period_s * 1e9 / WINDOW_NS)


def _count(times_ns: Sequence[int], start_ns: int) -> int:
    """How many of these moments lie in the window that begins then."""
    return bisect_left(times_ns, start_ns + WINDOW_NS) - bisect_left(times_ns, start_ns)


def measure_kill_rates(run: Run, directory: Path) -> tuple[list[Figure], Verdict]:
    """In a cluster of its own: both ends of a disk on one CPU."""
    with Cluster.build(name="bench-rates") as cluster:
        load = Load(cluster, directory, run.seed, spare=False, cpus=(run.here,))
        counts = _counts(run.duration_s, run.kills)
        kills = {period_s: _kill_every(period_s, count, run, load) for period_s, count in counts.items()}
        run.tell("checking what was written meanwhile")
        verdict = load.stop()
        answered = load.checker.times_ns
    return [_loss(period_s, some, answered) for period_s, some in kills.items()], verdict


def _counts(duration_s: float, chosen: int | None) -> dict[int, int]:
    """`chosen` kills, if that is fewer than LEAST, and not the least that there are."""
    least = LEAST if chosen is None else max(min(chosen, LEAST), FEWEST)
    counts = {period_s: round(count * min(duration_s / WHOLE_S, 1.0)) for period_s, count in KILLS.items()}
    return {p: max(count, least) for p, count in counts.items() if count >= least or p == min(KILLS)}


def _kill_every(period_s: int, count: int, run: Run, load: Load) -> list[Kill]:
    kills: list[Kill] = []
    due = time.monotonic() + period_s
    with load.cluster.events() as events:
        for number in range(count):
            run.tell(f"driver domain killed every {period_s} s: kill {number + 1} of {count}")
            _wait_for(due)
            due += period_s
            now_ns = time.monotonic_ns()
            kills.append(Kill(now_ns - WINDOW_NS, load.kill_once(events), now_ns))
    return kills


def _wait_for(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


def _loss(period_s: int, kills: list[Kill], times_ns: Sequence[int]) -> Figure:
    """What is lost at this rate, against twice the time that a recovery took."""
    shares = [kill.lost(times_ns, period_s) for kill in kills]
    took_s = median((death.completed - death.killed) / 1e9 for death in completed([k.death for k in kills], times_ns))
    lost, within, most = fmean(shares), 2 * stdev(shares) / len(shares) ** 0.5, 200 * took_s / period_s
    note = f"mean of {len(kills)} kills, ± {within:.2f} (95 %); a recovery took {took_s * 1e3:.1f} ms (p50)"
    name = f"throughput lost, driver domain killed every {period_s} s"
    return Figure(name, "%", [lost], (Goal("p50", most),), note, doubt=_doubt(len(kills), lost, within, most))


def _doubt(kills: int, lost: float, within: float, most: float) -> str:
    """Why it cannot be said whether no more than so much is lost."""
    if kills < LEAST:
        return f"not judged: {kills} kills are too few"
    return f"not judged: {kills} kills are too few, the goal lies in the interval" if abs(most - lost) <= within else ""
