"""Splits a recovery into its stages, by the broker's events, both ends' xenbus states, and the workload's history."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hvd.toolstack.cluster import LifecycleEvent
from hvd.transport.end_moments import REAPED_EVENT, moments_told

STAGES = ("detect", "fence", "reap", "respawn", "reconnect", "first response")
"""In milliseconds since the fault was injected; none of them where it did not come to that. Who takes the
victim's place is started at the fence: the reap may come later than all that follows."""
MACHINE = "machine"
"""Whom a fault hits that is for no domain."""
DOMID_MACHINE = -1
"""Of events that are about no domain."""
DEATHS = ("died", "hello", "broker restarted", "zygote restarted")
"""Of them only the first is about a domain. A listener is greeted again by a broker that is not the one before."""


@dataclass(slots=True)
class Recovery:
    """What followed one fault, for one victim."""

    victim: str
    injected_ns: int
    """On CLOCK_MONOTONIC."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    died: int | None = None
    """The incarnation of the victim that has died of it first; 0 of a machine's part."""

    def note(self, stage: str, at_ns: int) -> None:
        """The first time counts."""
        self.stages_ms.setdefault(stage, round((at_ns - self.injected_ns) / 1e6, 3))

    def hear(self, event: LifecycleEvent, at_ns: int) -> None:
        """News of anybody, at a time on CLOCK_MONOTONIC."""
        machine = self.victim == MACHINE
        if at_ns < self.injected_ns or (event.domid != DOMID_MACHINE if machine else event.name != self.victim):
            return
        if event.event == REAPED_EVENT:
            self.hear_end(event, at_ns)
        elif event.event in DEATHS and self.died is None:
            self.died = event.incarnation
        if machine and event.event in DEATHS:
            self.note("respawn", at_ns)  # it says so itself when it is back
        elif event.event == "ready" and self.died is not None:
            self.note("respawn", at_ns)

    def hear_end(self, event: LifecycleEvent, at_ns: int) -> None:
        """What the machine tells of an end, a while after it: perhaps when everybody has recovered from the fault.

        The first end that was suspected behind the fault counts, of the incarnation that died of it.
        """
        of_machine = self.victim == MACHINE
        whose = event.domid == DOMID_MACHINE if of_machine else event.name == self.victim
        if not whose or (not of_machine and event.incarnation != self.died):
            return
        moments = moments_told(event.detail, at_ns)
        if moments.suspected_ns >= self.injected_ns:
            self.note("detect", moments.suspected_ns)
            self.note("fence", moments.fenced_ns)
            self.note("reap", moments.reaped_ns)

    @property
    def awaits_end(self) -> bool:
        """Whether somebody has died of it, and it was not told yet when."""
        return self.died is not None and "reap" not in self.stages_ms


def first_response_ns(answered_ns: Sequence[int], since_ns: int, until_ns: int) -> int | None:
    """The end of the longest silence after a fault: what a dead backend had answered before ends no wait."""
    start = bisect_right(answered_ns, since_ns)
    times = [since_ns, *(at for at in answered_ns[start:] if at <= until_ns)]
    gaps = [(later - earlier, later) for earlier, later in pairwise(times)]
    return max(gaps)[1] if gaps else None
