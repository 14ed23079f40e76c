"""Many domains and many channels: how fast they are made, what each costs, whether a pair among them is slower."""

from __future__ import annotations

import os
import time

from hvd.toolstack.bench.figures import Figure, Goal, ratio, value
from hvd.toolstack.bench.idle import idle_cpu_percent, proportional_mib
from hvd.toolstack.bench.measured import TRACED, Pair
from hvd.toolstack.bench.run import ROUNDS, Run
from hvd.toolstack.cluster import Cluster
from hvd.transport.histogram import Histogram
from hvd.transport.messages import DomainConfig

DOMAINS, FEW = 200, 8
IDLE = "hvd:idle"
CHANNELS = 1000
ASLEEP_NS = 1_000_000
IDLE_WINDOWS = 3
"""In which nobody asks anything, behind one in which what was put off while domains were made is done: a snapshot of
the tables, and all that waits for a quiet moment."""
DEADLINE_S = 120.0


def measure_scale(run: Run, domains: int = DOMAINS) -> list[Figure]:
    """In a cluster of its own: a pair of domains, then so many that there are `domains`."""
    with Cluster.build(name="bench-scale") as cluster:
        pair = Pair(cluster, "pair", run.here, run.there)
        channels = _channels(run, pair)
        _create(cluster, FEW - len(cluster.domains()), "few")
        run.tell(f"{FEW} domains idle")
        window_s = max(run.duration_s * 0.2, 0.2)
        settling = idle_cpu_percent(cluster, window_s)
        idle = [idle_cpu_percent(cluster, window_s) for _ in range(IDLE_WINDOWS)]
        alone = _pair_figures(run, pair, "alone")
        run.tell(f"creating domains until there are {domains}")
        begin = time.monotonic()
        created = _create(cluster, domains - len(cluster.domains()), "many")
        per_second = created / (time.monotonic() - begin) if created else None
        run.tell(f"memory of {domains} domains")
        memory = [proportional_mib(info.pid) for info in cluster.infos().values() if info.pid and info.kernel == IDLE]
        crowded = _pair_figures(run, pair, f"{domains - 2} others idle")
        many_idle = idle_cpu_percent(cluster, max(run.duration_s * 0.1, 0.2))
    return [
        channels,
        value(f"{FEW} domains just created", "% of a CPU", settling, note=f"the first {window_s:.1f} s: not idle yet"),
        Figure(f"{FEW} domains idle", "% of a CPU", idle, (Goal("p50", 1.0),), "machine, broker and zygote included"),
        value("domains created until ready", "1/s", per_second, Goal("p50", least=100.0), note=f"{created} at once"),
        Figure("memory of a domain (PSS)", "MiB", memory, (Goal("max", 4.0),), f"the {len(memory)} that do nothing"),
        value(f"{domains} domains idle", "% of a CPU", many_idle),
        *alone,
        *crowded,
        ratio("pair hot, crowded / alone", crowded[0], alone[0], most=1.2),
        ratio("pair asleep, crowded / alone", crowded[1], alone[1], most=1.2),
    ]


def _create(cluster: Cluster, count: int, name: str) -> int:
    """Domains that do nothing, all asked for and then awaited; how many."""
    made = [cluster.create(DomainConfig(f"{name}-{number}", IDLE, sandbox_off=TRACED)) for number in range(count)]
    cluster.wait_ready(DEADLINE_S, made)
    return len(made)


def _pair_figures(run: Run, pair: Pair, label: str) -> tuple[Figure, Figure]:
    hot, asleep = Histogram(), Histogram()
    for number in range(ROUNDS):
        run.tell(f"a pair, {label}, round {number + 1} of {ROUNDS}")
        hot.add(pair.call(run.share_ns(0.1) // ROUNDS, "spin"))
        asleep.add(pair.call(run.share_ns(0.2) // ROUNDS, "sleep", think_ns=ASLEEP_NS))
    return (
        Figure.timed(f"event channel, both hot, {label}", hot, wait="spin"),
        Figure.timed(f"event channel, both asleep, {label}", asleep, wait="sleep"),
    )


def _channels(run: Run, pair: Pair) -> Figure:
    """Opened, bound, each rung once; how many were heard."""
    run.tell(f"{CHANNELS} channels")
    opened = pair.caller.do("open_channels", peer=pair.answerer.domid, count=CHANNELS)
    pair.answerer.do("bind_channels", caller=pair.caller.domid, first=opened["first"], count=CHANNELS)
    pair.caller.do("ring_channels")
    heard = pair.answerer.do("heard_channels", count=CHANNELS)["heard"]
    who = "as root" if os.geteuid() == 0 else "without root"
    goal = Goal("p50", least=float(CHANNELS))
    return value("channels between two domains, each rung and heard", "", float(heard), goal, note=who)
