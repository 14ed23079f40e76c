"""The broker works on the CPUs of those whom it works for, as in Xen a hypercall is carried out on its caller's CPU."""

from __future__ import annotations

from hvd.transport._native import CpuFollower
from hvd.transport.ids import DomId

ANYWHERE = 0


class CallersCpus:
    """Which CPUs those are. Nothing is moved for domains that have no `cpus`, nor for the toolstack."""

    def __init__(self) -> None:
        self._follower = CpuFollower()
        self._places: dict[DomId, int] = {}

    def learn(self, domid: DomId, cpus: list[int]) -> None:
        """Where a domain is kept."""
        self._places[domid] = self._follower.place(cpus)

    def forget(self, domid: DomId) -> None:
        self._places.pop(domid, None)

    def worked_for(self, domid: DomId) -> None:
        """A hypercall of this domain's was carried out, or whatever else it has us do."""
        self._follower.worked_for(self._places.get(domid, ANYWHERE))
