"""What the store holds at one moment, for operators, quotas reports and conservation checks."""

from collections.abc import Mapping

from hvd.transport.ids import DomId
from hvd.transport.records import dataclass


@dataclass(frozen=True, slots=True)
class DomainStatistics:
    """One domain's share."""

    introduced: bool
    nodes: int
    bytes: int
    """Nodes, watches and what open transactions have written: what memory_bytes_max bounds."""
    watches: int
    transactions: int
    events: int
    """Waiting to be taken."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """The whole store."""

    generation: int
    """Changes ever made, those inside transactions included."""
    nodes: int
    watches: int
    transactions: int
    events: int
    events_shortened: int
    """Events that lost their detail because their domain had too many waiting, ever."""
    domains: Mapping[DomId, DomainStatistics]
