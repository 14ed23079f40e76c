"""What any hypercall is refused for, whatever it asks: that there is no room for what it would leave behind."""

from __future__ import annotations

import errno
from typing import Any

from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.broker.ledger import LEFT_AT_LAST, LEFT_BY_ANYBODY, LEFT_BY_HOST, LEFT_BY_LIFE, Ledger
from hvd.broker.sessions import TOOLSTACK
from hvd.broker.state import State
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import DESCRIPTORS_PENDING_MAX

LIFE = (m.SandboxReport, m.DomainReady, m.SchedWatchdog, m.SchedShutdown)
"""Without which a domain that does nothing wrong would be ended by its watchdog, or not end well."""
ENDS = (m.DomctlDestroy, m.DomctlKill)
"""What gives the host back what a domain takes up."""
REPORT_BYTES_MAX = 2048
"""Of one of those by which an incarnation comes to life: more than any has that says what its sandbox lacks."""


def refusal(
    state: State, ledger: Ledger, session: str, caller: DomId, message: Any, *, size: int, journaled: bool
) -> Refused | None:
    """Why this one, of so many bytes, is not carried out; None: it is. Nothing has been changed."""
    queue = state.hypervisor.upcalls.get(caller)
    if queue is not None and queue.descriptors_sent - queue.descriptors_received >= DESCRIPTORS_PENDING_MAX:
        text = f"{DESCRIPTORS_PENDING_MAX} descriptors wait on the upcall socket: read them first"
        return Refused(errno.EAGAIN, text)
    if not journaled:
        return None
    if session.startswith(TOOLSTACK):
        leaves = LEFT_AT_LAST if isinstance(message, ENDS) else LEFT_BY_HOST
    else:
        leaves = _left_by_domain(state.hypervisor.domains[caller], message, size)
    return None if ledger.has_room(state, leaves) else Refused(errno.ENOSPC, ledger.full)


def _left_by_domain(domain: Domain, message: Any, size: int) -> int:
    if domain.domid == DOM0 or (_comes_to_life_by(domain, message) and size <= REPORT_BYTES_MAX):
        return LEFT_AT_LAST
    return LEFT_BY_LIFE if isinstance(message, LIFE) else LEFT_BY_ANYBODY


def _comes_to_life_by(domain: Domain, message: Any) -> bool:
    """Whether it is the first report of its kind: no incarnation makes more than two that are."""
    ready, reports = isinstance(message, m.DomainReady), isinstance(message, m.SandboxReport)
    return (ready and not domain.ready) or (reports and domain.sandbox_lacking is None)
