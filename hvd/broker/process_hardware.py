"""What the tables ask of the machine for a domain's processes: signals, dumps, their end, their memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from hvd.broker import core_dumps
from hvd.broker.domain import Domain
from hvd.broker.process_evidence import private_resident_kib
from hvd.transport.descendants import family
from hvd.transport.machine_link import BOUND, BOUND_DISKS, DENY, DUMP, DUMP_LIVE, READY, SIGNAL
from hvd.transport.sandbox import Kind


class ProcessHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    unsettled: list[Callable[[], None]]

    @abstractmethod
    def tell_machine(self, message: list[Any], descriptors: tuple[int, ...] = ()) -> None: ...

    def signal_domain(self, domain: Domain, number: int) -> None:
        message = [SIGNAL, domain.domid, domain.incarnation, number]
        self.unsettled.append(lambda: self.tell_machine(message))

    def deny(self, domain: Domain, what: str) -> None:
        """`what` as the machine's order has it."""
        message = [DENY, domain.domid, domain.incarnation, what]
        self.unsettled.append(lambda: self.tell_machine(message))

    def watch_end(self, domain: Domain) -> None:
        """Not of one that may make asynchronous I/O: the kernel writes for it until it has taken its memory apart."""
        if domain.config.sandbox != Kind.PROGRAM and "seccomp" not in domain.config.sandbox_off:
            self.tell_machine([READY, domain.domid, domain.incarnation, domain.config.driver_domain])

    def dump_domain(self, domain: Domain) -> None:
        fault = domain.fault.as_list() if domain.fault is not None else []
        message = [DUMP, domain.domid, domain.incarnation, core_dumps.core_name(domain), fault]
        self.unsettled.append(lambda: self.tell_machine(message))

    def dump_live_domain(self, domain: Domain) -> None:
        message = [DUMP_LIVE, domain.domid, domain.incarnation, domain.core_to]
        self.unsettled.append(lambda: self.tell_machine(message))

    def bound_memory(self, domain: Domain, kib: int) -> None:
        message = [BOUND, domain.domid, domain.incarnation, kib]
        self.unsettled.append(lambda: self.tell_machine(message))

    def bound_new_disks(self, domain: Domain) -> None:
        message = [BOUND_DISKS, domain.domid, domain.incarnation, domain.config.io_bps]
        self.unsettled.append(lambda: self.tell_machine(message))

    def memory_used_kib(self, domain: Domain) -> int:
        return sum(map(private_resident_kib, family(domain.pid)))
