"""Trace buffers as descriptors: each domain's, those of the dead, and the broker's own, which its loop writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hvd.broker.event_channels import EventChannels
from hvd.broker.held import INFO, TRACE, HeldDescriptors, domain_key, trace_key
from hvd.transport._native import TraceBuffer
from hvd.transport.ids import DomId, Incarnation, Port
from hvd.transport.limits import TRACE_LEASE_S
from hvd.transport.pages import Extent
from hvd.transport.shared_info import write_trace_switch
from hvd.transport.trace import (
    BUFFER_PAGES,
    HYPERVISOR,
    TOOLSTACK,
    Kind,
    Slots,
    TraceClock,
    best_clock,
    create_trace_buffer,
    give_memory_back,
    read_head,
    read_slots,
    take_memory,
)

ERRNO_MAX = 0xFFFF
TRACE_CALLS = range(0x2380, 0x2390)
"""Numbers of the hypercalls that read a trace, which would fill it with themselves."""


class TraceBuffers:
    """What the tables' `Tracing` asks of the world."""

    def __init__(self, held: HeldDescriptors, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._held = held
        self._monotonic_s = monotonic_s
        self.clock = best_clock()
        self._own: TraceBuffer | None = None
        self._lease_ends: float | None = None

    # ---- a session ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The broker's own buffer, new or a dead broker's. OSError when the host has no memory or descriptor for it."""
        key = trace_key(*HYPERVISOR)
        if key not in self._held.by_key:
            buffer = create_trace_buffer()
            try:
                take_memory(buffer)
            except OSError:
                os.close(buffer)
                raise
            self._held.hold(key, [buffer])
        self._own = TraceBuffer(Extent.map(self._held.by_key[key][0], BUFFER_PAGES, writable=True).view)
        self._own.record(Kind.BROKER, 0, os.getpid(), 0, self.clock)
        self.renew_lease()

    def end(self) -> None:
        self._own = None
        self._lease_ends = None
        self._held.drop(trace_key(*HYPERVISOR))

    def renew_lease(self) -> None:
        """Somebody reads it."""
        self._lease_ends = self._monotonic_s() + TRACE_LEASE_S

    def lease_left_s(self) -> float | None:
        """Until when somebody must have read it; None: there is no session."""
        return None if self._lease_ends is None else self._lease_ends - self._monotonic_s()

    # ---- domains' buffers --------------------------------------------------------------------------------------------

    def switch(self, domid: DomId, *, on: bool) -> None:
        """OSError when the host has no memory for its records; nothing is switched then."""
        descriptors = self._held.by_key[domain_key(domid)]
        if on:
            take_memory(descriptors[TRACE])
        write_trace_switch(descriptors[INFO], self.clock if on else TraceClock.OFF)

    def clear(self, domid: DomId) -> None:
        give_memory_back(self._held.by_key[domain_key(domid)][TRACE])

    def keep(self, domid: DomId, incarnation: Incarnation) -> None:
        """Under a key of its own; where no descriptor is left for that, it is gone."""
        key = domain_key(domid)
        if key in self._held.by_key:
            with suppress(OSError):
                self._held.hold(trace_key(domid, incarnation), [os.dup(self._held.by_key[key][TRACE])])

    def release(self, domid: DomId, incarnation: Incarnation) -> None:
        self._held.drop(trace_key(domid, incarnation))

    def head(self, domid: DomId, incarnation: Incarnation, *, kept: bool) -> int:
        """How many records were begun, if one believes their writer; 0 when the buffer has gone."""
        buffer = self._buffer(domid, incarnation, kept=kept)
        return 0 if buffer is None else read_head(buffer)

    def read(self, domid: DomId, incarnation: Incarnation, first: int, *, kept: bool) -> Slots | None:
        """Some of its slots; None when the buffer has gone."""
        buffer = self._buffer(domid, incarnation, kept=kept)
        return None if buffer is None else read_slots(buffer, first)

    def _buffer(self, domid: DomId, incarnation: Incarnation, *, kept: bool) -> int | None:
        """The one under a key of its own (a dead incarnation's, the broker's), or that of the domain that lives."""
        key, place = (trace_key(domid, incarnation), 0) if kept else (domain_key(domid), TRACE)
        descriptors = self._held.by_key.get(key)
        return None if descriptors is None else descriptors[place]

    # ---- the broker's own records ------------------------------------------------------------------------------------

    def hypercall(self, caller: DomId | None, number: int, sequence: int) -> None:
        """The broker begins to carry one out; a caller of None is the toolstack."""
        if self._own is not None and number not in TRACE_CALLS:
            self._own.record(Kind.HYPERCALL, TOOLSTACK if caller is None else caller, sequence, number, self.clock)

    def hypercall_done(self, caller: DomId | None, number: int, sequence: int, errno: int) -> None:
        if self._own is not None and number not in TRACE_CALLS:
            domid = TOOLSTACK if caller is None else caller
            self._own.record(Kind.HYPERCALL_DONE, domid, sequence, min(errno, ERRNO_MAX), self.clock)

    def port_bound(self, domid: DomId, port: Port, channel: int, side: int) -> None:
        """Which channel a domain's records mean when they name this port, from here on."""
        if self._own is not None:
            self._own.record(Kind.PORT_BOUND, port, channel << 32 | domid, side, self.clock)

    def all_ports(self, channels: EventChannels) -> None:
        """What is bound as the trace begins."""
        for domid, ports in channels.ports.items():
            for port, binding in ports.items():
                self.port_bound(domid, port, binding.channel, binding.side)


def as_reply(slots: Slots) -> list[Any]:
    """What TraceRead answers."""
    return [slots.untrusted_head, slots.first, slots.untrusted_bytes, slots.untrusted_head_after]
