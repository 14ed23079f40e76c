"""Faults in the world: orders and switches in domains' shared info pages, what is done to hypercalls, and counts.

A broker's successor finds the pages as they are, and the faults in its tables; counts begin again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress

from hvd.broker.domain import ALIVE, Domain
from hvd.broker.faults import Fault
from hvd.broker.held import DOMAIN, INFO, TRACE, HeldDescriptors, domain_key, extent_key
from hvd.broker.message_faults import MessageFault
from hvd.transport.faults import ORDER_SIGNAL, Family, FaultKind
from hvd.transport.ids import DomId, ExtentId
from hvd.transport.machine_link import DESCRIPTORS, MEMORY, TIME
from hvd.transport.shared_info import EventFault, Order, write_event_fault, write_order
from hvd.transport.trace import COUNTS, COUNTS_OFFSET

ORDERS = {
    FaultKind.EXIT: Order.EXIT,
    FaultKind.BUSY: Order.BUSY,
    FaultKind.FILL_FDS: Order.NO_DESCRIPTORS,
    FaultKind.OOM: Order.NO_MEMORY,
}
DENIED = {FaultKind.BUSY: TIME, FaultKind.FILL_FDS: DESCRIPTORS, FaultKind.OOM: MEMORY}
"""What processes that the domain has started get no more of: nobody can order them anything."""
EVENT_FAULTS = {
    FaultKind.DROP_EVENTS: EventFault.DROP,
    FaultKind.DELAY_EVENTS: EventFault.DELAY,
    FaultKind.STORM: EventFault.STORM,
    FaultKind.KILL_BEFORE_NOTIFY: EventFault.DIE,
}
KEPT_MAX = 64
"""Faults that are over whose counts are kept."""
COUNT_WORDS = struct.Struct(f"<{len(COUNTS)}Q")
FOUND_BY_OTHERS = "found by others"


class FaultEffects:
    """What the tables' `Faults` ask of the world."""

    def __init__(
        self,
        held: HeldDescriptors,
        signal_domain: Callable[[Domain, int], None],
        deny: Callable[[Domain, str], None],
    ) -> None:
        self._held = held
        self._signal_domain, self._deny = signal_domain, deny
        self.of_messages: dict[DomId, MessageFault] = {}
        self._before: dict[int, tuple[DomId, dict[str, int], int]] = {}
        """Of event faults under way: whose, its counts and what the others had found before."""
        self._messages_of: dict[int, MessageFault] = {}
        self._kept: dict[int, dict[str, int]] = {}

    def begin(self, domain: Domain, fault: Fault) -> None:
        """Let it take effect; `resume` in a new broker, where its page says so already."""
        self.resume(domain, fault)
        info = self._held.by_key[domain_key(domain.domid)][INFO]
        if fault.family is Family.ORDER:
            write_order(info, ORDERS[fault.kind], number=fault.number, until_ns=fault.ends_ns)
            self._signal_domain(domain, ORDER_SIGNAL)
            self.deny_again(domain, [fault])
        elif fault.family is Family.EVENTS:
            write_event_fault(
                info, EVENT_FAULTS[fault.kind], rate=fault.rate, seed=fault.seed, until_ns=fault.ends_ns,
                amount=fault.amount,
            )  # fmt: skip

    def resume(self, domain: Domain, fault: Fault) -> None:
        """Count what it does from here on."""
        if fault.family is Family.HYPERCALLS:
            self.of_messages[domain.domid] = self._messages_of[fault.number] = MessageFault(fault)
        elif fault.family is Family.EVENTS:
            self._make_room(domain.domid)
            self._before[fault.number] = domain.domid, self._of(domain.domid), self._found_by_others(domain.domid)

    def deny_again(self, domain: Domain, faults: Iterable[Fault]) -> None:
        """Have the machine see to what it has started, under all its faults: said twice it changes nothing."""
        self._deny(domain, next((DENIED[fault.kind] for fault in faults if fault.kind in DENIED), ""))

    def end(self, domain: Domain, fault: Fault) -> None:
        """Undo it."""
        self._keep(fault.number, self.counts(fault.number))
        self._before.pop(fault.number, None)
        if self._messages_of.pop(fault.number, None) is not None:
            del self.of_messages[domain.domid]
        if domain.life in ALIVE:
            info = self._held.by_key[domain_key(domain.domid)][INFO]
            if fault.family is Family.ORDER:
                write_order(info, Order.NONE, number=fault.number)
                self._signal_domain(domain, ORDER_SIGNAL)
                self.deny_again(domain, [])
            elif fault.family is Family.EVENTS:
                write_event_fault(info, EventFault.NONE)

    def flip(self, number: int, bits: Iterable[tuple[ExtentId, int, int]]) -> None:
        """Of extents: each bit becomes what it was not. Counted are those that then read so."""
        flipped = 0
        for extent, offset, bit in bits:
            if extent_key(extent) in self._held.by_key:
                flipped += _flip(self._held.extent(extent), offset, bit)
        self._keep(number, {"bits flipped": flipped})

    def counts(self, number: int) -> dict[str, int]:
        """By name. Of event faults they are the domain's own words, beside what other domains have found."""
        if (messages := self._messages_of.get(number)) is not None:
            return dict(messages.counts)
        if number not in self._before:
            return self._kept.get(number, {})
        domid, before, found_before = self._before[number]
        counts = {name: _since(before[name], now) for name, now in self._of(domid).items() if name != "found"}
        return counts | {FOUND_BY_OTHERS: _since(found_before, self._found_by_others(domid))}

    # ---- counts in trace buffers' first pages -----------------------------------------------------------------------

    def _of(self, domid: DomId) -> dict[str, int]:
        """0 for a domain that has gone."""
        descriptors = self._held.by_key.get(domain_key(domid))
        untrusted = b"" if descriptors is None else os.pread(descriptors[TRACE], COUNT_WORDS.size, COUNTS_OFFSET)
        return dict(zip(COUNTS, COUNT_WORDS.unpack(untrusted.ljust(COUNT_WORDS.size, b"\0")), strict=True))

    def _found_by_others(self, domid: DomId) -> int:
        keys = [key.partition(":") for key in self._held.by_key]
        others = {DomId(int(number)) for kind, _, number in keys if kind == DOMAIN} - {domid}
        return sum(self._of(other)["found"] for other in others)

    def _make_room(self, domid: DomId) -> None:
        """The page they are in is a hole until somebody writes it: let that not be the domain's notify."""
        with suppress(OSError):
            os.posix_fallocate(self._held.by_key[domain_key(domid)][TRACE], COUNTS_OFFSET, COUNT_WORDS.size)

    def _keep(self, number: int, counts: dict[str, int]) -> None:
        self._kept[number] = counts
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]


def _since(before: int, now: int) -> int:
    """The buffer is emptied when a trace ends: it counts from 0 again."""
    return now - before if now >= before else now


def _flip(descriptor: int, offset: int, bit: int) -> bool:
    """Whether it took: its owner may write there at the same time."""
    before = os.pread(descriptor, 1, offset)
    os.pwrite(descriptor, bytes([before[0] ^ 1 << bit]), offset)
    return os.pread(descriptor, 1, offset) != before
