"""A trace buffer's bytes: what the native writer leaves, read from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hvd.transport._native import TraceBuffer, open_own_trace, trace_clocks
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.limits import TRACE_READ_RECORDS_MAX, TRACE_RECORDS
from hvd.transport.pages import PAGE_SIZE, Extent
from hvd.transport.trace import (
    BUFFER_PAGES,
    RECORD,
    TRUSTED_COUNTERS,
    Kind,
    TraceClock,
    best_clock,
    create_trace_buffer,
    give_memory_back,
    read_head,
    read_slots,
    take_memory,
)


@pytest.fixture
def buffer() -> Iterator[int]:
    descriptor = create_trace_buffer()
    yield descriptor
    os.close(descriptor)


def writer(buffer: int) -> TraceBuffer:
    return TraceBuffer(Extent.map(buffer, BUFFER_PAGES, writable=True).view)


def fill(buffer: int, count: int) -> None:
    trace = writer(buffer)
    for number in range(count):
        trace.record(Kind.NOTIFY, 1, number, 0, TraceClock.MONOTONIC)


def test_what_native_code_records_is_what_is_read(buffer):
    _, before = trace_clocks(TraceClock.MONOTONIC)
    writer(buffer).record(Kind.PORT_BOUND, 131_071, 2**64 - 1, 65_535, TraceClock.MONOTONIC)
    slots = read_slots(buffer, 0)
    ((sequence, ticks, id_, port, count, kind),) = RECORD.iter_unpack(slots.untrusted_bytes)
    assert (sequence, id_, port, count, kind) == (1, 2**64 - 1, 131_071, 65_535, Kind.PORT_BOUND)
    assert before <= ticks <= trace_clocks(TraceClock.MONOTONIC)[1]
    assert (slots.untrusted_head, slots.first, slots.untrusted_head_after) == (1, 0, 1)


def test_a_copy_goes_on_at_the_first_slot_behind_the_last(buffer):
    fill(buffer, TRACE_RECORDS + 5)
    slots = read_slots(buffer, TRACE_RECORDS - 3)
    numbers = [record[0] - 1 for record in RECORD.iter_unpack(slots.untrusted_bytes)]
    assert numbers == list(range(TRACE_RECORDS - 3, TRACE_RECORDS + 5))


def test_one_read_brings_at_most_so_many_records(buffer):
    fill(buffer, TRACE_READ_RECORDS_MAX + 1)
    assert len(read_slots(buffer, 0).untrusted_bytes) == TRACE_READ_RECORDS_MAX * RECORD.size
    assert len(read_slots(buffer, TRACE_READ_RECORDS_MAX).untrusted_bytes) == RECORD.size


@pytest.mark.parametrize("first", [1, 2, 2**63 - 1])
def test_nothing_is_read_beyond_the_head(buffer, first):
    fill(buffer, 1)
    assert read_slots(buffer, first).untrusted_bytes == b""


@pytest.mark.parametrize("head", [2**64 - 1, 2**63, TRACE_RECORDS * 3 + 1])
def test_whatever_a_domain_makes_of_its_head_only_the_buffer_is_read(buffer, head):
    os.pwrite(buffer, head.to_bytes(8, "little"), 0)
    assert read_head(buffer) == head
    assert len(read_slots(buffer, 0).untrusted_bytes) == TRACE_READ_RECORDS_MAX * RECORD.size
    assert len(read_slots(buffer, head - 1).untrusted_bytes) == RECORD.size


def test_a_buffer_takes_no_memory_until_it_is_to_be_written(buffer):
    assert os.fstat(buffer).st_blocks == 0
    take_memory(buffer)
    assert os.fstat(buffer).st_blocks * 512 == BUFFER_PAGES * PAGE_SIZE
    fill(buffer, 3)
    give_memory_back(buffer)
    assert os.fstat(buffer).st_blocks == 0
    assert read_head(buffer) == 0


def test_two_readings_of_both_clocks_agree_on_how_much_time_passed():
    (ticks, ns), (later_ticks, later_ns) = trace_clocks(TraceClock.MONOTONIC), trace_clocks(TraceClock.MONOTONIC)
    assert ticks <= later_ticks
    assert ns <= later_ns
    assert abs(ticks - ns) < 1_000_000_000


def test_the_cpus_counter_is_used_only_where_the_kernel_keeps_time_by_it():
    with open("/sys/devices/system/clocksource/clocksource0/current_clocksource") as file:
        trusted = file.read().strip() in TRUSTED_COUNTERS
    assert (best_clock() is TraceClock.COUNTER) == trusted


def test_a_buffer_that_is_too_small_is_refused_and_so_is_one_that_could_shrink(buffer):
    with pytest.raises(LocalError, match="a trace buffer holds"):
        TraceBuffer(bytearray(PAGE_SIZE))
    loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(loose, BUFFER_PAGES * PAGE_SIZE)
        with pytest.raises(PeerFault, match="not sealed"):
            open_own_trace(loose, loose)
    finally:
        os.close(loose)


def test_to_choose_a_clock_loads_no_module() -> None:
    """Every broker chooses one before it answers anybody: a codec from a disk would keep them waiting."""
    script = """
import sys
from hvd.transport.trace import best_clock
before = set(sys.modules)
best_clock()
assert set(sys.modules) == before, set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
