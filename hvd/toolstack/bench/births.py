"""How long a domain takes from its create hypercall to the first line of its program."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DomainConfig
from hvd.transport.sandbox import LAYERS

DEADLINE_S = 30.0
STANDBYS = 2
"""How many processes the zygote has standing by; the one after them is forked for its domain."""
REST_S = 0.1
"""Until then they stand by again."""
FRESH_MAX, LIVED = 5, 4
"""Births of a cluster that no domain has lived in, and how many then live: from those its zygote learns which pages a
birth uses, which it does once, and not of one that is dead by the time that it looks."""


def measure_births(cluster: Cluster, directory: Path, count: int, tell: Callable[[str], None]) -> list[Figure]:
    """Create one domain after another; each notes when its first line ran."""
    fresh, warm, forked, bare = [], [], [], []
    for number in range(min(count, FRESH_MAX)):
        tell(f"domain {number + 1} of a cluster that none has lived in")
        time.sleep(REST_S)
        fresh.append(_birth_ms(cluster, directory, f"fresh-{number}"))
    _live(cluster)
    for number in range(count):
        tell(f"domain {number + 1} of {count}")
        time.sleep(REST_S)
        warm.append(_birth_ms(cluster, directory, f"warm-{number}"))
        time.sleep(REST_S)
        takers = [cluster.create(DomainConfig(f"bench-taker-{taker}", "hvd:idle")) for taker in range(STANDBYS)]
        forked.append(_birth_ms(cluster, directory, f"forked-{number}"))
        for taker in takers:
            taker.destroy()
            taker.wait_gone(DEADLINE_S)
        time.sleep(REST_S)
        bare.append(_birth_ms(cluster, directory, f"bare-{number}", sandbox_off=list(LAYERS)))
    share = [with_one - without for with_one, without in zip(forked, bare, strict=True)]
    note = f"right behind {STANDBYS} that took what stood by"
    lived = f"in a cluster that {LIVED} domains have lived in"
    return [
        Figure("domain create to its first line, from a warm standby", "ms", warm, (Goal("p50", 1.0),), lived),
        Figure("domain create to its first line, from a standby, before any has lived", "ms", fresh),
        Figure("domain create to its first line, forked", "ms", forked, (Goal("p50", 10.0),), note),
        Figure("domain create to its first line, forked, without a sandbox", "ms", bare, (Goal("p50", 5.0),)),
        Figure("domain create to its first line, forked: the sandbox's share", "ms", share, (Goal("p50", 5.0),)),
    ]


def _live(cluster: Cluster) -> None:
    """Domains that are there for a while, as those of any cluster are."""
    for number in range(LIVED):
        time.sleep(REST_S)
        cluster.create(DomainConfig(f"bench-lived-{number}", "hvd:idle")).wait_ready(DEADLINE_S)
    time.sleep(REST_S)
    for number in range(LIVED):
        domain = cluster.domain(f"bench-lived-{number}")
        domain.destroy()
        domain.wait_gone(DEADLINE_S)


def _birth_ms(cluster: Cluster, directory: Path, name: str, **fields: Any) -> float:
    note = directory / name
    config = DomainConfig(
        f"bench-{name}", "hvd:first_line", args=[str(note)], on_crash="destroy", paths=[f"{note}:w"], **fields
    )
    started_ns = time.monotonic_ns()
    cluster.create(config).wait_gone(DEADLINE_S)
    return (int(note.read_text()) - started_ns) / 1e6
