"""Faults that the broker carries out on one domain and ends when their time is over: what they share."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hvd.toolstack.cluster import Domain
from hvd.toolstack.faults.fault import BadFault, Effect, Order, Seen
from hvd.toolstack.faults.processes import Watched
from hvd.transport import messages as m
from hvd.transport.faults import RATE_MOST, FaultKind
from hvd.transport.hypercalls import HypercallError

Witness = Callable[["HeldFault"], Seen]
Note = Callable[["HeldFault"], None]
"""What a witness looks at before there is a fault."""


class HeldFault:
    """A fault of a domain's that the broker knows by its number."""

    def __init__(
        self, order: Order, victim: Domain, kind: FaultKind, witness: Witness, note: Note | None = None
    ) -> None:
        self.order, self.victim, self.kind = order, victim, kind
        self._witness, self._note = witness, note
        self.number = 0
        self.before: dict[str, float] = {}
        """What the witness noted before."""

    def begin(self) -> None:
        """BadFault when the victim has no process, HypercallError when the broker refuses."""
        info = self.victim.info()
        if info.pid is None:
            raise BadFault(f"domain {info.name} is {info.state_text}: it has no process that a fault could meet")
        self.incarnation = info.incarnation
        self.process = Watched(info.pid)
        try:
            if self._note is not None:
                self._note(self)
            self._tell_broker()
        except BaseException:
            self.process.close()
            raise

    def _tell_broker(self) -> None:
        order = self.order
        message = m.FaultBegin(
            self.victim.domid, self.kind, round(order.for_s * 1000), order.seed,
            order.parameters.get("rate", RATE_MOST), order.parameters.get("amount", 0),
        )  # fmt: skip
        self.number = order.cluster.call(message)

    def look(self) -> Seen:
        """What its witness says."""
        return self._witness(self)

    def counts(self) -> dict[str, int]:
        """What the broker has counted of it."""
        return dict(self.order.cluster.call(m.FaultCounts(self.number)))

    def undo(self) -> None:
        try:
            self.order.cluster.call(m.FaultEnd(self.victim.domid, self.number))
        except HypercallError as error:
            if error.errno != errno.ESRCH:  # it is gone, and its faults with it
                raise
        finally:
            self.process.close()


def held_fault(kind: FaultKind, witness: Witness, note: Note | None = None) -> Callable[[Order], list[Effect]]:
    """How a fault begins that is one of the broker's, on each victim."""
    return lambda order: [HeldFault(order, victim, kind, witness, note) for victim in order.victims]
