"""What the next new domain is born with, made while nobody asks for anything: a process's descriptors, an endpoint.

Nothing of it is in the tables: a broker that dies leaves its successor to make it again. What the host refuses here is
made when it is asked for, and refused then.
"""

from __future__ import annotations

import time

from hvd.broker.endpoints import Endpoints
from hvd.broker.held import HeldDescriptors
from hvd.transport.ids import DomId, Incarnation

FIRST = Incarnation(1)
OVERDUE_NS = 1_000_000_000
"""So that how much there is of everything is the same whenever nobody has been born for a while, whoever asks."""


class ReadyMade:
    """The descriptors are anybody's; the endpoint is the next domid's, whose name and key nobody else will have."""

    def __init__(self, held: HeldDescriptors, endpoints: Endpoints) -> None:
        self._held = held
        self._endpoints = endpoints
        self._for: DomId | None = None
        self._since_ns = time.monotonic_ns()

    @property
    def is_overdue(self) -> bool:
        """Whether nobody has been born for so long that it is made though somebody asks for something."""
        return time.monotonic_ns() - self._since_ns > OVERDUE_NS

    def lacks(self, domid: DomId) -> bool:
        """Whether something is to be made for this next domid."""
        return self._for != domid

    def make(self, domid: DomId, secret: bytes) -> None:
        """Once for each, and again when some of it has been taken; not where half of all descriptors are in use."""
        self._for = domid
        if self._held.used > self._held.most // 2:
            return
        try:
            self._held.make_ready()
            self._endpoints.make_ready(domid, FIRST, secret)
        except OSError:
            return

    def taken(self) -> None:
        """Somebody is born."""
        self._for, self._since_ns = None, time.monotonic_ns()
