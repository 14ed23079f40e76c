"""Looks at a cluster at intervals: each look has the rates since the one before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hvd.toolstack.monitor.rates import Rates, rates
from hvd.toolstack.monitor.sample import SAMPLE_S, take_sample
from hvd.toolstack.monitor.snapshot import take

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster


class Watcher:
    """For one thread."""

    def __init__(self, cluster: Cluster) -> None:
        """The first snapshot is taken."""
        self._cluster = cluster
        self._before = take(cluster)

    def look(self, delay_s: float) -> Rates:
        """What happened since the last look, at least `delay_s` ago; a moment of that is traced."""
        due = self._before.at_ns / 1e9 + delay_s
        sample = take_sample(self._cluster, min(SAMPLE_S, max(delay_s / 2, 0.001)))
        time.sleep(max(0.0, due - time.monotonic()))
        after = take(self._cluster)
        seen = rates(self._before, after, self._cluster.event_channels(), sample)
        self._before = after
        return seen
