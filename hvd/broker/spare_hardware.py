"""What the tables ask of the world for spares: their processes, and when each order to the machine may go out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from hvd.broker.domain import Domain
from hvd.broker.endpoints import Endpoints
from hvd.broker.held import HeldDescriptors, domain_key
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.ready_made import ReadyMade
from hvd.broker.spare_processes import SpareProcesses
from hvd.broker.upcall_sockets import UpcallSockets
from hvd.broker.xenstored.sockets import StoreSockets
from hvd.transport.ids import DomId


class SpareHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    held: HeldDescriptors
    endpoints: Endpoints
    ready_made: ReadyMade
    store_sockets: StoreSockets
    spares: SpareProcesses
    upcalls: UpcallSockets
    unsettled: list[Callable[[], None]]
    left: list[Callable[[], None]]

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
    def open_store_socket(self, domain: Domain) -> None: ...
    @abstractmethod
    def listen_to_rest(self, domain: Domain) -> None: ...
    @abstractmethod
    def switch_wanted_trace(self, domain: Domain) -> None: ...

    def create_spare(self, domid: DomId) -> None:
        self.ready_made.taken()
        with self.noting_refusal("spare", domid):
            self.spares.create(domid)

    def fork_spare(self, domain: Domain) -> None:
        self.tell_machine(*self.spares.fork_order(domain))

    def start_spare(self, domain: Domain) -> None:
        with self.noting_refusal("start spare", domain.domid):
            self.spares.start(self.hypervisor, domain)
            self.store_sockets.make_ready(domain.domid, self.endpoints.directory_of_spare(domain.domid))

    def promote_spare(self, domain: Domain) -> None:
        """Its sockets, pages and endpoint are the domain's, whose clock begins. What can wait is left for later."""
        with self.noting_refusal("promote", domain.domid):
            self.spares.promote(domain.domid)
            self.update_shared_info(domain)
        self.upcalls.listen(domain)
        with suppress(OSError):  # a host without a socket left has none for it
            self.store_sockets.promote(domain.domid)
            self.open_store_socket(domain)
        self.left.append(lambda: self._listen_to_spare(domain))
        with suppress(OSError):  # no memory for a trace: it goes untraced
            self.switch_wanted_trace(domain)

    def _listen_to_spare(self, domain: Domain) -> None:
        """Unless it was given up in the command that promoted it."""
        if domain_key(domain.domid) in self.held.by_key:
            with suppress(OSError):
                self.listen_to_rest(domain)

    def signal_spare(self, domain: Domain) -> None:
        order = self.spares.kill_order(domain)
        self.unsettled.append(lambda: self.tell_machine(order))

    def disown_spare(self, domain: Domain) -> None:
        order = self.spares.disown_order(domain)
        self.unsettled.append(lambda: self.tell_machine(order))

    def release_spare(self, domid: DomId) -> None:
        self.spares.release(domid)
        self.store_sockets.release_spare(domid)
