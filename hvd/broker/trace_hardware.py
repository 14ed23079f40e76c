"""What the tables ask of the world for traces: buffers that are written, kept, read and let go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

from hvd.broker.domain import Domain
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.trace_buffers import TraceBuffers, as_reply
from hvd.broker.tracing import Phase
from hvd.transport.ids import DOMID_XEN, DomId, Incarnation, Port


class TraceHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    trace: TraceBuffers

    @property
    @abstractmethod
    def hypervisor(self) -> Hypervisor: ...
    @abstractmethod
    def noting_refusal(self, what: str, number: int) -> AbstractContextManager[None]: ...

    def switch_wanted_trace(self, domain: Domain) -> None:
        tracing = self.hypervisor.tracing
        if tracing.phase is Phase.ON and tracing.wants(domain):
            self.trace.switch(domain.domid, on=True)

    def start_trace(self) -> None:
        with self.noting_refusal("trace", DOMID_XEN):
            self.trace.start()
        self.trace.all_ports(self.hypervisor.channels)

    def end_trace(self) -> None:
        self.trace.end()

    def switch_trace(self, domain: Domain, *, on: bool) -> None:
        with self.noting_refusal("trace", domain.domid):
            self.trace.switch(domain.domid, on=on)

    def clear_trace(self, domain: Domain) -> None:
        self.trace.clear(domain.domid)

    def keep_trace(self, domain: Domain) -> None:
        self.trace.keep(domain.domid, domain.incarnation)

    def release_trace(self, domid: DomId, incarnation: Incarnation) -> None:
        self.trace.release(domid, incarnation)

    def trace_clock(self) -> int:
        self.trace.renew_lease()
        return self.trace.clock

    def trace_head(self, domid: DomId, incarnation: Incarnation, *, kept: bool) -> int:
        return self.trace.head(domid, incarnation, kept=kept)

    def read_trace(
        self, domid: DomId, incarnation: Incarnation, first: int, *, kept: bool
    ) -> list[Any] | None:
        self.trace.renew_lease()
        slots = self.trace.read(domid, incarnation, first, kept=kept)
        return None if slots is None else as_reply(slots)

    def port_bound(self, domid: DomId, port: Port, channel: int, side: int) -> None:
        self.trace.port_bound(domid, port, channel, side)
