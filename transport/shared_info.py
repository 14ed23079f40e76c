"""The page that tells a domain the time: written by the broker, mapped read-only by the domain (Xen's shared_info).

Little-endian u64 words: 0 version (odd while being written), 1 started_ns and 2 paused_ns on CLOCK_MONOTONIC, 3 the
wall clock at system time 0, 4 domid, 5 incarnation, 6 the switch. System time = CLOCK_MONOTONIC - started - paused: it
stands still while the domain is paused, and the wall clock, which counts from it, with it.

The switch is what every notification and ring operation looks at: its first byte is the clock of the trace that the
domain is to write (native/trace.hpp), its second says that its notifications are to fail as words 7 to 10 say
(native/event_faults.hpp). Words 11 to 13 are an order to its process (native/fault_orders.hpp).
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from enum import IntEnum

from hvd.transport.records import dataclass

WORDS = struct.Struct("<6Q")
TRACE_SWITCH, FAULT_SWITCH = WORDS.size, WORDS.size + 1
EVENT_FAULT = struct.Struct("<II3Q")
EVENT_FAULT_OFFSET = 7 * 8
ORDER = struct.Struct("<3Q")
ORDER_OFFSET = EVENT_FAULT_OFFSET + EVENT_FAULT.size


class EventFault(IntEnum):
    """What becomes of a domain's notifications (native/event_faults.hpp has the same numbers)."""

    NONE = 0
    DROP = 1
    DELAY = 2
    STORM = 3
    DIE = 4


class Order(IntEnum):
    """What a domain's process does when ORDER_SIGNAL reaches it (native/fault_orders.hpp has the same numbers)."""

    NONE = 0
    """Undo what the last order did."""
    EXIT = 1
    BUSY = 2
    NO_DESCRIPTORS = 3
    NO_MEMORY = 4


@dataclass(frozen=True, slots=True)
class TimeInfo:
    """What the page says."""

    started_ns: int
    paused_ns: int
    wall_base_ns: int
    domid: int
    incarnation: int


def write_time_info(page: mmap.mmap, info: TimeInfo) -> None:
    """Publish; a reader in the middle of it tries again."""
    version = struct.unpack_from("<Q", page)[0] | 1
    struct.pack_into("<Q", page, 0, version)
    WORDS.pack_into(page, 0, version, info.started_ns, info.paused_ns, info.wall_base_ns, info.domid, info.incarnation)
    struct.pack_into("<Q", page, 0, version + 1)


def write_trace_switch(descriptor: int, clock: int) -> None:
    """Heard at the domain's next notification or ring operation."""
    os.pwrite(descriptor, bytes([clock]), TRACE_SWITCH)


def write_event_fault(
    descriptor: int, fault: EventFault, *, rate: int = 0, seed: int = 0, until_ns: int = 0, amount: int = 0
) -> None:
    """Heard at the domain's next notification, until CLOCK_MONOTONIC is `until_ns`. `rate`: how many of a thousand."""
    os.pwrite(descriptor, b"\0", FAULT_SWITCH)
    os.pwrite(descriptor, EVENT_FAULT.pack(fault, rate, seed, until_ns, amount), EVENT_FAULT_OFFSET)
    os.pwrite(descriptor, bytes([fault is not EventFault.NONE]), FAULT_SWITCH)


def write_order(descriptor: int, order: Order, *, number: int = 0, until_ns: int = 0) -> None:
    """What the domain is to do when it is signalled next; one that it carries out already it ends when this changes."""
    os.pwrite(descriptor, ORDER.pack(order, number, until_ns), ORDER_OFFSET)


class SharedInfo:
    """A domain's view of its page."""

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self) -> TimeInfo:
        """A consistent copy. The writer stops us (or is the broker's only thread), so this ends at once in practice."""
        for _ in range(1000):
            version, *words = WORDS.unpack_from(self._page)
            if not version & 1 and struct.unpack_from("<Q", self._page)[0] == version:
                return TimeInfo(*words)
        return TimeInfo(*words)

    def system_time_ns(self) -> int:
        """Nanoseconds this incarnation has run, pauses left out."""
        info = self.read()
        return time.monotonic_ns() - info.started_ns - info.paused_ns

    def wall_clock_ns(self) -> int:
        """Nanoseconds since 1970 as the domain sees it: behind the host's by what it spent paused."""
        return self.read().wall_base_ns + self.system_time_ns()
