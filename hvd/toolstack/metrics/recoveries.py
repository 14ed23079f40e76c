"""How long each domain was away: from a death to the readiness of the next incarnation, as a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvd.toolstack.cluster.events import LifecycleEvent

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Recoveries:
    """Those that were heard of, and who is away."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Histogram

        self._seconds = Histogram(
            "hvd_domain_recovery_seconds", "From a domain's death to the readiness of its next incarnation.",
            ["domain"], buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._died: dict[int, LifecycleEvent] = {}
        """By domid: the first death since it was last ready."""

    def take(self, event: LifecycleEvent) -> None:
        """Whoever dies again before it is ready is away since the first of these deaths."""
        if event.event == "died":
            self._died.setdefault(event.domid, event)
        elif event.event in ("failed", "destroyed"):
            self._died.pop(event.domid, None)
        elif event.event == "booted":
            self._died.clear()
        elif event.event == "ready" and event.domid in self._died:
            died = self._died.pop(event.domid)
            self._seconds.labels(event.name).observe((event.at_ns - died.at_ns) / 1e9)
