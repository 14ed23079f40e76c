"""How long a domain takes from its create hypercall to the first line of its program."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DomainConfig

DEADLINE_S = 30.0


def measure_births(cluster: Cluster, directory: Path, count: int, tell: Callable[[str], None]) -> Figure:
    """Create one domain after another; each notes when its first line ran."""
    samples = []
    for number in range(count):
        tell(f"domain {number + 1} of {count}")
        note = directory / f"birth-{number}"
        config = DomainConfig(f"bench-birth-{number}", "hvd:first_line", args=[str(note)], on_crash="destroy")
        started_ns = time.monotonic_ns()
        cluster.create(config).wait_gone(DEADLINE_S)
        samples.append((int(note.read_text()) - started_ns) / 1e6)
    return Figure("domain create to its first line", "ms", samples, (Goal("p50", 10.0),))
