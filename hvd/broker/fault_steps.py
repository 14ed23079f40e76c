"""What beginning, turning and ending each fault means for the tables: which signal, which page, which extent."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from hvd.broker import corruption
from hvd.broker.domain import ACTING, Domain, Life
from hvd.broker.errors import Refused
from hvd.broker.faults import Fault
from hvd.transport.faults import Family, FaultKind
from hvd.transport.ids import DOM0, DomId, ExtentId

if TYPE_CHECKING:
    from hvd.broker.lives import Lives
    from hvd.transport.messages import FaultBegin

SIGABRT, SIGKILL, SIGSEGV, SIGCONT, SIGSTOP = 6, 9, 11, 18, 19
DEATHS = {FaultKind.KILL: SIGKILL, FaultKind.SEGV: SIGSEGV, FaultKind.ABORT: SIGABRT}


def begin(h: Lives, message: FaultBegin, now_ns: int) -> int:
    """Do it, or begin it; its number. Refused or OSError: nothing was done."""
    domain = h.domain(message.dom)
    if domain.life not in ACTING or domain.pid is None:
        state = domain.life.name.lower()
        raise Refused(errno.ESRCH, f"domain {domain.name} is {state}: it has no process that a fault could meet")
    fault = h.faults.make(message, domain.incarnation, now_ns)
    if message.for_ms == 0 and fault.family is not Family.MOMENT and fault.kind is not FaultKind.EXIT:
        raise Refused(errno.EINVAL, f"{fault.kind} takes a time that it is for")
    if fault.family in (Family.STOP, Family.ORDER) and domain.life is not Life.RUNNING:
        raise Refused(errno.EINVAL, f"domain {domain.name} is {domain.life.name.lower()}: {fault.kind} would not show")
    _start(h, domain, fault, now_ns)
    if fault.family is not Family.MOMENT and fault.ends_ns > now_ns:
        h.faults.active[fault.number] = fault
    h.announce("fault injected", domain, _words(fault, message.for_ms))
    return fault.number


def _words(fault: Fault, for_ms: int) -> str:
    how_long = f" for {for_ms} ms" if for_ms else ""
    return f"{fault.number}: {fault.kind}{how_long}, seed {fault.seed}"


def _start(h: Lives, domain: Domain, fault: Fault, now_ns: int) -> None:
    match fault.family:
        case Family.MOMENT:
            _do(h, domain, fault)
        case Family.STOP:
            if fault.kind is FaultKind.SLOW:
                fault.turn(now_ns)
            h.hardware.signal_domain(domain, SIGSTOP)
        case Family.MEMORY:
            fault.extents = tuple(_take_extents(h, domain.domid))
        case Family.ORDER | Family.EVENTS | Family.HYPERCALLS:
            h.hardware.begin_fault(domain, fault)


def _do(h: Lives, domain: Domain, fault: Fault) -> None:
    if fault.kind in DEATHS:
        h.hardware.signal_domain(domain, DEATHS[fault.kind])
        return
    chosen = random.Random(fault.seed)
    corrupt = corruption.ring if fault.kind is FaultKind.CORRUPT_RING else corruption.pages
    h.hardware.flip_bits(domain, fault.number, corrupt(h, domain, fault.amount, chosen))


def _take_extents(h: Lives, domid: DomId) -> Iterator[ExtentId]:
    """All that it may still have, one page each, for nobody in particular."""
    with suppress(Refused, OSError):  # the quota is reached, or the domain's part of the descriptors
        while True:
            yield h.grants.allocate(domid, DOM0, 1, readonly=False).id


def _give_back_extents(h: Lives, fault: Fault) -> None:
    for extent in fault.extents:
        h.grants.free(fault.domid, extent)


def turn(h: Lives, fault: Fault, now_ns: int) -> None:
    """It is due: over, or into the other part of its period."""
    if fault.ends_ns <= now_ns:
        end(h, fault)
        return
    fault.turn(now_ns)
    domain = h.domains[fault.domid]
    if domain.life not in (Life.PAUSED, Life.DUMPING):  # that is stopped, and goes on by `unpause` alone
        h.hardware.signal_domain(domain, SIGSTOP if fault.stopped else SIGCONT)


def end(h: Lives, fault: Fault, *, dead: bool = False) -> None:
    """Undo it: its time is over, somebody says so, or its process is dead."""
    domain = h.domains[fault.domid]
    del h.faults.active[fault.number]
    match fault.family:
        case Family.STOP if not dead and domain.life is Life.RUNNING:
            h.hardware.signal_domain(domain, SIGCONT)
        case Family.MEMORY if not dead:
            _give_back_extents(h, fault)
        case Family.ORDER | Family.EVENTS | Family.HYPERCALLS:
            h.hardware.end_fault(domain, fault)
    h.announce("fault over", domain, f"{fault.number}: {fault.kind}")
