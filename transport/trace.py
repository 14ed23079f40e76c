"""Trace buffers: their layout (native/trace.hpp writes it), how one is made, and how its bytes are read from outside.

A page that begins with the *head*, the number of records ever begun, and behind it the slots: record n lies in slot
n % RECORDS, and is whole if its sequence is n + 1. The memory of a buffer is taken when its domain is traced, and given
back behind that; until then it is a hole.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import Final

from hvd.transport._native import punch_hole
from hvd.transport.ids import DOMID_XEN, Incarnation
from hvd.transport.limits import TRACE_READ_RECORDS_MAX, TRACE_RECORDS
from hvd.transport.pages import PAGE_SIZE, create_hole
from hvd.transport.records import dataclass

RECORD: Final = struct.Struct("<QQQIHBx")
"""sequence, ticks, id, port, count, kind."""
HEAD: Final = struct.Struct("<Q")
COUNTS: Final = ("dropped", "delayed", "repeated", "found")
"""Names of the counts in a buffer's first page, behind the head (native/trace.hpp): the domain writes them."""
COUNTS_OFFSET: Final = 128
BUFFER_PAGES: Final = 1 + TRACE_RECORDS * RECORD.size // PAGE_SIZE
HYPERVISOR: Final = (DOMID_XEN, Incarnation(0))
"""Whose buffer the broker's is."""
TRUSTED_COUNTERS: Final = {"tsc", "arch_sys_counter"}
"""Linux's clock sources that are the CPU's counter itself: it checks that all CPUs' agree before it uses one."""


class Kind(IntEnum):
    """What a record tells of."""

    NOTIFY = 1
    """The peer of this port was notified."""
    EVENT = 2
    """An event of this port was taken."""
    REQUEST_OUT = 3
    """Put into this port's ring. `count` 0: one message, `id` is its own; else `count` ring indices from `id` on."""
    REQUEST_IN = 4
    """Taken out of it."""
    RESPONSE_OUT = 5
    RESPONSE_IN = 6
    HYPERCALL = 7
    """The broker begins one: `port` is the caller's domid (TOOLSTACK), `id` its sequence number, `count` its number."""
    HYPERCALL_DONE = 8
    """Of the same caller; `count` is its errno."""
    PORT_BOUND = 9
    """`id` is channel << 32 | domid; `port` of that domain is the channel's side `count` from here on."""
    BROKER = 10
    """`id` is the pid of the broker that writes from here on."""


class TraceClock(IntEnum):
    """What records carry as their time; the values of the switch in the shared info page."""

    OFF = 0
    MONOTONIC = 1
    """Nanoseconds of CLOCK_MONOTONIC."""
    COUNTER = 2
    """The CPU's own counter: half the price."""


TOOLSTACK: Final = 0xFFFF
"""In the place of a domid: the caller is a toolstack program."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Some of a buffer's slots, copied while their owner may have been writing: nothing in them is trusted."""

    untrusted_head: int
    first: int
    """The number of the record that the first slot should hold."""
    untrusted_bytes: bytes
    untrusted_head_after: int
    """The head, read again when the copy was done: what it has lapped by then may be torn."""


def best_clock() -> TraceClock:
    """The clock for a trace on this host: the counter, where the kernel itself keeps time by it."""
    try:
        with open("/sys/devices/system/clocksource/clocksource0/current_clocksource", "rb") as file:  # no codec to load
            return TraceClock.COUNTER if file.read().strip().decode() in TRUSTED_COUNTERS else TraceClock.MONOTONIC
    except OSError:
        return TraceClock.MONOTONIC


def create_trace_buffer() -> int:
    """A descriptor of a buffer that takes no memory yet."""
    return create_hole(BUFFER_PAGES, "hvd-trace")


def take_memory(buffer: int) -> None:
    """Allocate all of it, so that no writer can be killed for touching it. OSError when the host has none."""
    os.posix_fallocate(buffer, 0, BUFFER_PAGES * PAGE_SIZE)


def give_memory_back(buffer: int) -> None:
    """Everything in it reads as zeros from here on, its head too."""
    punch_hole(buffer, 0, BUFFER_PAGES * PAGE_SIZE)


def read_head(buffer: int) -> int:
    """How many records were begun, if one believes its owner."""
    return int(HEAD.unpack(os.pread(buffer, HEAD.size, 0))[0])


def read_slots(buffer: int, first: int, records_max: int = TRACE_READ_RECORDS_MAX) -> Slots:
    """Record `first` and those behind it, as far as they were begun, but no more than so many."""
    head = read_head(buffer)
    count = max(0, min(head - first, records_max, TRACE_RECORDS))
    at = first % TRACE_RECORDS
    until_end = min(count, TRACE_RECORDS - at)
    data = _pread(buffer, at, until_end) + _pread(buffer, 0, count - until_end)
    return Slots(head, first, data, read_head(buffer))


def _pread(buffer: int, slot: int, count: int) -> bytes:
    return os.pread(buffer, count * RECORD.size, PAGE_SIZE + slot * RECORD.size)
