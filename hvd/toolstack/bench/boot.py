"""Starting: the machine, dom0, a cluster of eight, one domain more; and whether the order of starts is kept."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path

from hvd.toolstack.bench.births import measure_births
from hvd.toolstack.bench.boots import measure_boots, measure_cluster_boots, measure_list
from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DomainConfig

BOOT_S, CLUSTER_BOOT_S, BIRTH_S, LIST_S = 0.5, 1.0, 0.3, 0.15
"""About how long one of each takes: what turns a duration into counts."""
ORDERED_BOOTS, ORDERED_FROM_S = 100, 10.0
"""So many boots of a chain the goal speaks of: a run that is to take so long or longer makes them all, 0.3 s each."""
DEADLINE_S = 30.0
CHAIN = ("first", "second", "third", "fourth", "fifth", "sixth")


def measure_boot(run: Run) -> list[Figure]:
    """In directories and clusters of its own."""
    with tempfile.TemporaryDirectory(prefix="hvd-bench-") as name:
        directory = Path(name)
        figures = measure_boots(directory, _count(run, 0.3, BOOT_S), run.tell)
        figures.append(measure_cluster_boots(directory, _count(run, 0.25, CLUSTER_BOOT_S), run.tell))
        with Cluster.build(name="bench-boot") as cluster:
            figures.append(measure_list(cluster.run_dir, _count(run, 0.1, LIST_S), run.tell))
            figures += measure_births(cluster, directory, _count(run, 0.15, BIRTH_S), run.tell)
    return [*figures, _order(run)]


def _order(run: Run) -> Figure:
    """A chain of domains each after the one before, and a bystander; started in that order, whole, again and again."""
    count = min(_count(run, 1.0, ORDERED_FROM_S / ORDERED_BOOTS), ORDERED_BOOTS)
    right = 0
    for number in range(count):
        run.tell(f"start order {number + 1} of {count}")
        right += _boots_in_order()
    share = 100 * right / count
    note = f"{right} of {count} boots of {len(CHAIN)} domains, each after the one before"
    return value("starts in the right order", "%", share, Goal("p50", least=100.0), note=note)


def _boots_in_order() -> bool:
    """Whether nobody was started before whom it comes after was ready, by the broker's own events."""
    chain = [DomainConfig(name, "hvd:idle", after=list(CHAIN[:number][-1:])) for number, name in enumerate(CHAIN)]
    cluster = Cluster.build([*reversed(chain), DomainConfig("bystander", "hvd:idle")], name="bench-order")
    heard: list[tuple[str, str]] = []
    until = time.monotonic() + DEADLINE_S
    cluster.switch_on()
    try:
        with cluster.events() as events:
            while (CHAIN[-1], "ready") not in heard and (event := events.next_until(until)) is not None:
                heard.append((event.name, event.event))
    finally:
        cluster.down(grace_s=0)
    return in_order(heard)


def in_order(heard: list[tuple[str, str]]) -> bool:
    """Each start after the readiness it waits for. The first ones may have happened before anybody listened; the last
    may not."""
    starts = [(before, name) for before, name in pairwise(CHAIN) if (name, "starting") in heard]
    if starts[-1:] != [(CHAIN[-2], CHAIN[-1])] or (CHAIN[-2], "ready") not in heard:
        return False
    ready_late = [name for before, name in starts if (before, "ready") in heard[heard.index((name, "starting")) :]]
    return not ready_late


def _count(run: Run, part: float, each_s: float) -> int:
    return max(int(run.duration_s * part / each_s), 1)
