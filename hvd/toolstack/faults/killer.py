"""Kills domains at random moments and times how they come back, by the broker's own clock and events."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hvd.toolstack.cluster import Cluster, Domain, EventStream, LifecycleEvent

LAST_STATES = ("failed", "destroyed")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What followed one kill. Times are milliseconds from the signal; None: it never came to that."""

    number: int
    victim: str
    incarnation: int
    """The one that was killed."""
    detected_ms: float | None = None
    """Its death is certain, and whoever used it has been told."""
    ready_ms: float | None = None
    """Its successor does what it is for."""
    outcome: str = ""
    """Why there is no successor."""
    killed_ns: int = 0
    """When the signal was sent, on CLOCK_MONOTONIC."""

    @property
    def recovered(self) -> bool:
        return self.ready_ms is not None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self) | {"recovered": self.recovered}


class Killer:
    """SIGKILLs one of its victims after another, each when the one before is back. The seed decides whom and when."""

    def __init__(
        self, cluster: Cluster, victims: list[Domain], *, seed: int, interval_s: float, deadline_s: float
    ) -> None:
        """A pause between two kills is random, up to twice `interval_s`; who is not back by the deadline is lost."""
        self._cluster = cluster
        self._victims = victims
        self._random = random.Random(seed)
        self._interval_s = interval_s
        self._deadline_s = deadline_s

    def run(self, kills: int, tell: Callable[[str], None]) -> Iterator[Recovery]:
        """Each kill's recovery as it is known; ends early when a victim does not come back."""
        with self._cluster.events() as events:
            for number in range(1, kills + 1):
                victim = self._random.choice(self._victims)
                tell(f"kill {number} of {kills}: {victim.name}")
                self._pause(events)
                recovery = self._kill(number, victim, events)
                yield recovery
                if not recovery.recovered:
                    return

    def _pause(self, events: EventStream) -> None:
        """Let a random while pass, and the events in it."""
        until = time.monotonic() + self._random.uniform(0, 2 * self._interval_s)
        while events.next_until(until) is not None:
            continue

    def _kill(self, number: int, victim: Domain, events: EventStream) -> Recovery:
        info = victim.info()
        sent_ns = time.monotonic_ns()
        victim.kill(signal.SIGKILL)
        until = time.monotonic() + self._deadline_s
        killed_ns = detected_ms = None
        while (event := events.next_until(until)) is not None:
            if event.domid != victim.domid:
                continue
            if event.event == "signalled":
                killed_ns = event.at_ns
            elif killed_ns is not None and event.event == "died":
                detected_ms = _ms(event, killed_ns)
            elif killed_ns is not None and event.event == "ready":
                ready_ms = _ms(event, killed_ns)
                return Recovery(number, victim.name, info.incarnation, detected_ms, ready_ms, killed_ns=sent_ns)
            elif event.event in LAST_STATES:
                outcome = f"{event.event}: {event.detail}"
                return Recovery(number, victim.name, info.incarnation, detected_ms, outcome=outcome)
        outcome = f"not ready after {self._deadline_s:g} s"
        return Recovery(number, victim.name, info.incarnation, detected_ms, outcome=outcome)


def _ms(event: LifecycleEvent, since_ns: int) -> float:
    return round((event.at_ns - since_ns) / 1e6, 3)


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and max, each a value that was measured (nearest rank)."""
    if not values:
        return {}
    ordered = sorted(values)
    ranks = {f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 90, 99)}
    return ranks | {"max": ordered[-1]}
