"""Owns what is due, and when, of all domains: restarts, graces, watchdogs, timers. Few have any: only those are asked.

The times stand in the domains' records: a timer or watchdog is due in its domain's system time, which may stand still.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from hvd.broker.domain import ACTING, Domain
from hvd.transport.ids import DomId


class Due(Enum):
    """What is to be done at a deadline."""

    RETRY = auto()
    """Start it again: its back-off is over."""
    GRACE = auto()
    """Kill it: it was asked to shut down and has had its time."""
    WATCHDOG = auto()
    """Kill it: it did not feed its watchdog."""
    TIMER = auto()
    """Raise VIRQ_TIMER."""
    SPARE = auto()
    """Begin a spare."""
    RUN = auto()
    """Let one run that has taken over."""


class Deadlines:
    """The domains that may have a deadline."""

    def __init__(self, domains: dict[DomId, Domain]) -> None:
        """Among these, who come and go."""
        self.domains = domains
        self._noted: dict[DomId, None] = {}

    def note(self, domain: Domain) -> None:
        """A deadline in this domain's record has changed."""
        if _has_any(domain) and domain.domid in self.domains:
            self._noted[domain.domid] = None
        else:
            self._noted.pop(domain.domid, None)

    def forget(self, domid: DomId) -> None:
        self._noted.pop(domid, None)

    def next_ns(self) -> int | None:
        """The host time of the first; None: nothing will ever be due by itself."""
        return min((at for at, _, _ in self.all()), default=None) if self._noted else None

    def all(self) -> Iterator[tuple[int, Due, Domain]]:
        """(host time in ns, what, whose) of every deadline whose time runs."""
        for domid in self._noted:
            domain = self.domains[domid]
            yield from ((at, what, domain) for at, what in _of(domain))


def _has_any(domain: Domain) -> bool:
    set_at = (domain.retry_at_ns, domain.kill_at_ns, domain.timer_ns, domain.spare_at_ns, domain.runs_at_ns)
    return any(at is not None for at in (*set_at, *domain.watchdogs.values()))


def _of(domain: Domain) -> Iterator[tuple[int, Due]]:
    if domain.retry_at_ns is not None:
        yield domain.retry_at_ns, Due.RETRY
    if domain.life not in ACTING:
        return
    if domain.kill_at_ns is not None:
        yield domain.kill_at_ns, Due.GRACE
    if domain.spare_at_ns is not None:
        yield domain.spare_at_ns, Due.SPARE
    if domain.runs_at_ns is not None:
        yield domain.runs_at_ns, Due.RUN
    in_system_time = [(at, Due.WATCHDOG) for at in domain.watchdogs.values()] + [(domain.timer_ns, Due.TIMER)]
    for system_time_ns, what in in_system_time:
        at = None if system_time_ns is None else domain.clock.host_time_ns(system_time_ns)
        if at is not None:
            yield at, what
