"""What is done to all processes that a domain has started, beside its first: stops, and shortages."""

from __future__ import annotations

from collections.abc import Callable

from hvd.machine import halts
from hvd.machine.children import Child
from hvd.machine.halts import Halts
from hvd.machine.shortages import LIMITS, Shortages
from hvd.transport.machine_link import TIME


class Reach:
    """Processes of the machine's go there for it, each a child that is reaped as others are."""

    def __init__(self, adopt: Callable[[Child], None]) -> None:
        """`adopt` has the machine reap a new child."""
        self._halts, self._shortages = Halts(adopt), Shortages(adopt)

    def spread(self, domain: Child, number: int) -> None:
        """Its first process was sent SIGSTOP or SIGCONT: so are the others."""
        self._halts.spread(domain, number)

    def deny(self, domain: Child, what: str) -> None:
        """No more of this for the others from here on, and of all else as before; "": of everything."""
        self._halts.hold(domain, held=what == TIME)
        self._shortages.deny(domain, what if what in LIMITS else "")

    def ended(self, child: Child, how: str) -> None:
        """One that went there was reaped."""
        (self._halts if child.role == halts.ROLE else self._shortages).ended(child, how)

    def forget(self, domain: Child) -> None:
        """It is dead, and all it had started."""
        self._halts.forget(domain)
        self._shortages.forget(domain)

    def clear(self) -> None:
        """All are dead."""
        self._halts.clear()
        self._shortages.clear()
