"""What a pair on the other CPU feels of a driver domain that is killed: its calls with a kill in them and without.

The two kinds of windows take turns. In one cluster the hypervisor runs where the scheduler has it, in the other on the
CPU of the killed one, as a static partition has it. We who kill are on that CPU as well: nobody has us at a vehicle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.measured import SPIN_NS, Pair
from hvd.toolstack.bench.recovery import Load
from hvd.toolstack.bench.run import Run, pinned
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config.names import DOM0_NAME
from hvd.toolstack.faults.checker import Verdict
from hvd.transport.histogram import Histogram, from_text
from hvd.transport.messages import DomainConfig

WINDOW_NS = 400_000_000
"""Longer than a recovery."""
QUIET_S = 0.3
"""Behind a window with a kill, until whatever follows it is over."""
THINK_NS = 200_000
LEAST, PERIOD_S = 2, 2 * WINDOW_NS / 1e9 + QUIET_S
SLOWER_MOST = 1.2
WHERE = {"": False, ", hypervisor on another CPU": True}


def measure_bystander(run: Run, directory: Path) -> tuple[list[Figure], Verdict]:
    """In two clusters of its own: both ends of a disk on one CPU, the pair on the other."""
    figures, verdicts = [], []
    for how, parted in WHERE.items():
        place = directory / f"bystander-{parted}"
        place.mkdir()
        dom0 = [DomainConfig(DOM0_NAME, "hvd:dom0", cpus=[run.here], driver_domain=True)] if parted else []
        cpus = [run.here] if parted else []
        with Cluster.build(dom0, name="bench-bystander", cpus=cpus) as cluster, pinned(run.here):
            pair = Pair(cluster, "pair", run.there, run.there)
            load = Load(cluster, place, run.seed, spare=False, cpus=(run.here,))
            without, beside = _windows(run, load, pair, how)
            verdicts.append(load.stop())
        figures += _shown(how, without, beside)
    total = Verdict.total(verdicts)
    failed = value("operations of the killed one's guest that failed", "", total.failed, Goal("p50", 0))
    return [*figures, failed], total


def _windows(run: Run, load: Load, pair: Pair, how: str) -> tuple[Histogram, Histogram]:
    """(without a kill, with one), as many of each."""
    without, beside = Histogram(), Histogram()
    count = max(int(run.duration_s / 2 / PERIOD_S), LEAST)
    with load.cluster.events() as events:
        for number in range(count):
            run.tell(f"a bystander{how}: kill {number + 1} of {count}")
            without.add(_look(pair))
            beside.add(_look(pair, lambda: load.kill_once(events)))
            time.sleep(QUIET_S)
    return without, beside


def _look(pair: Pair, strike: Callable[[], object] = lambda: None) -> Histogram:
    """The pair calls each other for a window, which a kill may begin."""
    start = time.monotonic_ns()
    pair.answerer.order("answer", spin_ns=SPIN_NS["sleep"])
    pair.caller.order("call", for_ns=WINDOW_NS, spin_ns=SPIN_NS["sleep"], think_ns=THINK_NS, computing=False)
    strike()
    calls = from_text(pair.caller.result(max(0.0, (start + WINDOW_NS - time.monotonic_ns()) / 1e9))["times"])
    pair.answerer.result()
    return calls


def _shown(how: str, without: Histogram, beside: Histogram) -> list[Figure]:
    slower = beside.percentile(99) / without.percentile(99)
    return [
        Figure.timed(
            f"bystander{how}: event channel, both asleep, a driver domain killed meanwhile", beside, wait="sleep"
        ),
        Figure.timed(f"bystander{how}: event channel, both asleep, no kill", without, wait="sleep"),
        value(f"bystander{how}: beside kills / without, p99", "×", slower, Goal("p50", SLOWER_MOST)),
    ]
