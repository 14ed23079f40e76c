"""The faults that are under way: what is done to which incarnation, until when. The tables' part of `hvd fault`.

A fault is over when its time is, when its domain's process ends, or when somebody ends it: whoever began it may be
dead.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hvd.broker.errors import Refused
from hvd.transport.faults import FAMILY, SLOW_PERIOD_MS, Family, FaultKind
from hvd.transport.ids import DomId, ExtentId, Incarnation
from hvd.transport.limits import FAULT_S_MAX, FAULTS_MAX
from hvd.transport.records import dataclass

if TYPE_CHECKING:
    from hvd.transport.messages import FaultBegin

MS = 1_000_000
PERIOD_NS = SLOW_PERIOD_MS * MS


@dataclass(slots=True)
class Fault:
    """One fault of one incarnation. Times are the host's, in nanoseconds."""

    number: int
    kind: FaultKind
    domid: DomId
    incarnation: Incarnation
    ends_ns: int
    seed: int
    rate: int
    """Thousandths."""
    amount: int
    extents: tuple[ExtentId, ...] = ()
    """FILL_SHM: what was allocated in the domain's name."""
    stopped: bool = False
    """SLOW: the part of its period that it is in."""
    turns_ns: int | None = None
    """SLOW: when the other part begins."""

    @property
    def family(self) -> Family:
        return FAMILY[self.kind]

    def turn(self, now_ns: int) -> None:
        """SLOW: into the other part of the period."""
        self.stopped = not self.stopped
        share = self.rate if self.stopped else 1000 - self.rate
        self.turns_ns = now_ns + PERIOD_NS * share // 1000

    def describe(self, now_ns: int) -> dict[str, object]:
        """What FaultList says of it."""
        left_ms = max(0, self.ends_ns - now_ns) // MS
        who = {"domid": self.domid, "incarnation": self.incarnation}
        return {"fault": self.number, "kind": str(self.kind), **who, "left_ms": left_ms}


class Faults:
    """Those that are under way, and the number of the last one."""

    def __init__(self) -> None:
        self.active: dict[int, Fault] = {}
        self._last = 0

    def make(self, message: FaultBegin, incarnation: Incarnation, now_ns: int) -> Fault:
        """A fault as it was asked for, not begun. Refused: no such kind, too long, a second of its family, too many."""
        kind = kind_of(message.kind)
        if message.for_ms > FAULT_S_MAX * 1000:
            raise Refused(errno.EINVAL, f"a fault of {message.for_ms} ms; {FAULT_S_MAX} s is the most")
        others = [fault for fault in self.of(message.dom) if fault.family is FAMILY[kind]]
        if others and FAMILY[kind] is not Family.MOMENT:
            found = others[0]
            text = f"domain {message.dom} has fault {found.number}, {found.kind}, which {kind} cannot be added to"
            raise Refused(errno.EBUSY, text)
        if len(self.active) >= FAULTS_MAX:
            raise Refused(errno.ENOSPC, f"{FAULTS_MAX} faults are under way: end one, or wait")
        self._last += 1
        ends_ns = now_ns + message.for_ms * MS
        return Fault(self._last, kind, message.dom, incarnation, ends_ns, message.seed, message.rate, message.amount)

    def of(self, domid: DomId) -> list[Fault]:
        """What is being done to a domain."""
        return [fault for fault in self.active.values() if fault.domid == domid]

    def stops(self, domid: DomId) -> bool:
        """Whether a fault keeps its process stopped now."""
        return any(f.kind is FaultKind.HANG or f.stopped for f in self.of(domid))

    def next_ns(self) -> int | None:
        """When something is to be done about one; None: never."""
        if not self.active:
            return None
        return min(at for fault in self.active.values() for at in _times(fault))

    def due(self, now_ns: int) -> Iterator[Fault]:
        """Those about which something is to be done by now."""
        yield from [fault for fault in self.active.values() if any(at <= now_ns for at in _times(fault))]


def _times(fault: Fault) -> tuple[int, ...]:
    return (fault.ends_ns,) if fault.turns_ns is None else (fault.ends_ns, fault.turns_ns)


def kind_of(name: str) -> FaultKind:
    """EINVAL naming those there are."""
    try:
        return FaultKind(name)
    except ValueError:
        raise Refused(errno.EINVAL, f"no fault {name!r}; there are: {', '.join(FaultKind)}") from None
