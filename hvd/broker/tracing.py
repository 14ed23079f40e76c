"""Who is traced, and whose buffers are kept although they are dead: the tables' part of tracing.

    OFF --start--> ON --stop--> STOPPED --end--> OFF        (start and end are possible everywhere)

A domain's buffer is there from its birth to its end. What it held when it died stays readable while a trace is on: the
last records of an incarnation are the first that one asks for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum, auto

from hvd.broker.domain import ALIVE, Domain
from hvd.broker.errors import Refused
from hvd.broker.hardware import Hardware
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TRACES_KEPT_MAX
from hvd.transport.records import dataclass, field
from hvd.transport.trace import HYPERVISOR


class Phase(IntEnum):
    """What a session's buffers are for."""

    OFF = auto()
    """Nothing is recorded, nothing is kept."""
    ON = auto()
    """The domains chosen record, and so does the broker."""
    STOPPED = auto()
    """Nothing is recorded any more; what was can be read."""


@dataclass(slots=True)
class Tracing:
    """The one trace there is at a time."""

    phase: Phase = Phase.OFF
    session: int = 0
    """Of the trace that was begun last; whoever names another one is told that his is over."""
    chosen: frozenset[DomId] = frozenset()
    """Empty: every domain."""
    kept: dict[tuple[DomId, Incarnation], str] = field(default_factory=dict)
    """The dead whose buffers can still be read, the oldest first, with their names."""

    def start(self, chosen: Iterable[DomId], domains: Iterable[Domain], hardware: Hardware) -> int:
        """A new session, in place of any other. OSError, and nothing is traced, when the host has no memory for it."""
        domains = list(domains)
        self.end(domains, hardware)
        self.session += 1
        self.chosen = frozenset(chosen)
        self.phase = Phase.ON
        try:
            hardware.start_trace()
            for domain in self.traced(domains):
                hardware.switch_trace(domain, on=True)
        except OSError:
            self.end(domains, hardware)
            raise
        return self.session

    def stop(self, session: int, domains: Iterable[Domain], hardware: Hardware) -> None:
        """Nothing is recorded from here on. ESTALE: that session is over."""
        self.check(session)
        for domain in self.traced(domains):
            hardware.switch_trace(domain, on=False)
        self.phase = Phase.STOPPED

    def end(self, domains: Iterable[Domain], hardware: Hardware) -> None:
        """Switch off, and give back what was kept. Nothing if no session runs."""
        if self.phase is Phase.OFF:
            return
        for domain in self.traced(domains):
            hardware.switch_trace(domain, on=False)
            hardware.clear_trace(domain)
        for domid, incarnation in self.kept:
            hardware.release_trace(domid, incarnation)
        hardware.end_trace()
        self.kept.clear()
        self.phase = Phase.OFF

    def check(self, session: int) -> None:
        """ESTALE unless this session's buffers are there."""
        if self.phase is Phase.OFF or session != self.session:
            text = "another trace has begun since" if session != self.session else "it was not read for too long"
            raise Refused(errno.ESTALE, f"trace session {session} is over: {text}")

    def wants(self, domain: Domain) -> bool:
        """Whether this domain has a part in the session."""
        return self.phase is not Phase.OFF and (not self.chosen or domain.domid in self.chosen)

    def traced(self, domains: Iterable[Domain]) -> list[Domain]:
        """Those of the session that have, or may have, a process."""
        return [domain for domain in domains if domain.life in ALIVE and self.wants(domain)]

    def is_kept(self, domid: DomId, incarnation: Incarnation) -> bool:
        """Whether this buffer is no living domain's: a dead incarnation's, or the broker's own."""
        return (domid, incarnation) == HYPERVISOR or (domid, incarnation) in self.kept

    def keep(self, domain: Domain, hardware: Hardware) -> None:
        """Its process is dead, and its buffer about to go with it: not while somebody traces."""
        if not self.wants(domain):
            return
        hardware.keep_trace(domain)
        self.kept[domain.domid, domain.incarnation] = domain.name
        while len(self.kept) > TRACES_KEPT_MAX:
            oldest = next(iter(self.kept))
            del self.kept[oldest]
            hardware.release_trace(*oldest)
