"""What the tables ask of the world for injected faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from hvd.broker.bells import Bells
from hvd.broker.domain import Domain
from hvd.broker.fault_effects import FaultEffects
from hvd.broker.faults import Fault
from hvd.transport.ids import ExtentId
from hvd.transport.machine_link import STRIKE


class FaultHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    bells: Bells
    faults: FaultEffects
    unsettled: list[Callable[[], None]]

    @abstractmethod
    def tell_machine(self, message: list[Any], descriptors: tuple[int, ...] = ()) -> None: ...

    def begin_fault(self, domain: Domain, fault: Fault) -> None:
        self.faults.begin(domain, fault)

    def end_fault(self, domain: Domain, fault: Fault) -> None:
        self.faults.end(domain, fault)

    def deny_again(self, domain: Domain, faults: list[Fault]) -> None:
        """What all its faults together have what it has started denied."""
        self.faults.deny_again(domain, faults)

    def flip_bits(self, domain: Domain, number: int, bits: list[tuple[ExtentId, int, int]]) -> None:
        """Whoever uses the pages is woken, so that it looks."""
        self.unsettled += [lambda: self.faults.flip(number, bits), lambda: self.bells.ring_all(domain.domid)]

    def fault_counts(self, number: int) -> dict[str, int]:
        return self.faults.counts(number)

    def strike(self, role: str, number: int, for_ms: int) -> None:
        self.unsettled.append(lambda: self.tell_machine([STRIKE, role, number, for_ms]))
