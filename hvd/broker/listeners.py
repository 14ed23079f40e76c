"""Who in the broker's loop is told what processes say on their upcall sockets."""

from __future__ import annotations

from collections.abc import Callable

from hvd.broker.domain import Domain
from hvd.broker.spare_processes import OnReport
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.records import dataclass


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what domains say on their upcall sockets."""

    on_fault: Callable[[Domain, FaultNotice | None], None]
    on_post: Callable[[Domain, bytes], None]
    on_spare_report: OnReport
