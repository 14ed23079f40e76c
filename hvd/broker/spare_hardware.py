"""What the tables ask of the world for spares: their processes, and when each order to the machine may go out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from hvd.broker.domain import Domain
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.spare_processes import SpareProcesses
from hvd.transport.ids import DomId


class SpareHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    spares: SpareProcesses
    unsettled: list[Callable[[], None]]

    @property
    @abstractmethod
    def hypervisor(self) -> Hypervisor: ...
    @abstractmethod
    def noting_refusal(self, what: str, number: int) -> AbstractContextManager[None]: ...
    @abstractmethod
    def tell_machine(self, message: list[Any], descriptors: tuple[int, ...] = ()) -> None: ...
    @abstractmethod
    def update_shared_info(self, domain: Domain) -> None: ...
    @abstractmethod
    def listen(self, domain: Domain) -> None: ...
    @abstractmethod
    def switch_wanted_trace(self, domain: Domain) -> None: ...

    def create_spare(self, domid: DomId) -> None:
        with self.noting_refusal("spare", domid):
            self.spares.create(domid)

    def fork_spare(self, domain: Domain) -> None:
        self.tell_machine(*self.spares.fork_order(domain))

    def start_spare(self, domain: Domain) -> None:
        with self.noting_refusal("start spare", domain.domid):
            self.spares.start(self.hypervisor, domain)

    def promote_spare(self, domain: Domain) -> None:
        """Its sockets, pages and endpoint are the domain's, whose clock begins."""
        self.spares.promote(domain.domid)
        self.update_shared_info(domain)
        self.listen(domain)
        with suppress(OSError):  # no memory for a trace: it goes untraced
            self.switch_wanted_trace(domain)

    def signal_spare(self, domain: Domain) -> None:
        order = self.spares.kill_order(domain)
        self.unsettled.append(lambda: self.tell_machine(order))

    def disown_spare(self, domain: Domain) -> None:
        order = self.spares.disown_order(domain)
        self.unsettled.append(lambda: self.tell_machine(order))

    def release_spare(self, domid: DomId) -> None:
        self.spares.release(domid)
