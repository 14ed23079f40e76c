"""Trace buffers as descriptors: whose is read, what is kept of the dead, and how long an unread session lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hvd.broker.held import INFO, TRACE, HeldDescriptors, domain_key, trace_key
from hvd.broker.trace_buffers import TraceBuffers
from hvd.transport.descriptors import socket_pair
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TRACE_LEASE_S
from hvd.transport.shared_info import WORDS
from hvd.transport.trace import HYPERVISOR, RECORD, TOOLSTACK, Kind, Slots, TraceClock

GUEST, FIRST = DomId(5), Incarnation(1)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held() -> Iterator[HeldDescriptors]:
    link, machine = socket_pair()
    made = HeldDescriptors(link, {})
    made.create_domain(domain_key(GUEST))
    yield made
    for key in list(made.by_key):
        made.drop(key)
    made.settle()
    for end in (link, machine):
        end.close()


@pytest.fixture
def buffers(held: HeldDescriptors, clock: Clock) -> TraceBuffers:
    return TraceBuffers(held, clock)


def switch(held: HeldDescriptors) -> int:
    return int.from_bytes(os.pread(held.by_key[domain_key(GUEST)][INFO], 8, WORDS.size), "little")


def records(slots: Slots | None) -> list[tuple[int, int, int, int]]:
    """(kind, port, id, count)."""
    assert slots is not None
    return [(kind, port, id_, count) for _, _, id_, port, count, kind in RECORD.iter_unpack(slots.untrusted_bytes)]


def test_the_switch_says_which_clock_and_the_memory_is_there_before_it(buffers, held):
    buffers.switch(GUEST, on=True)
    assert switch(held) == buffers.clock != TraceClock.OFF
    assert os.fstat(held.by_key[domain_key(GUEST)][TRACE]).st_blocks > 0
    buffers.switch(GUEST, on=False)
    assert switch(held) == TraceClock.OFF
    buffers.clear(GUEST)
    assert os.fstat(held.by_key[domain_key(GUEST)][TRACE]).st_blocks == 0


def test_the_dead_ones_buffer_is_read_by_its_incarnation_after_the_domain_has_gone(buffers, held):
    buffers.switch(GUEST, on=True)
    os.pwrite(held.by_key[domain_key(GUEST)][TRACE], (7).to_bytes(8, "little"), 0)
    buffers.keep(GUEST, FIRST)
    held.drop(domain_key(GUEST))
    held.create_domain(domain_key(GUEST))
    held.settle()
    assert buffers.head(GUEST, FIRST, kept=True) == 7
    assert buffers.head(GUEST, Incarnation(2), kept=False) == 0
    buffers.release(GUEST, FIRST)
    held.settle()
    assert buffers.read(GUEST, FIRST, 0, kept=True) is None  # and not its successor's


def test_what_nobody_holds_is_no_buffer(buffers):
    assert buffers.read(DomId(9), FIRST, 0, kept=False) is None
    assert buffers.head(DomId(9), FIRST, kept=True) == 0
    buffers.keep(DomId(9), FIRST)


def test_where_no_descriptor_is_left_the_buffer_of_the_dead_goes_and_nothing_else_does(buffers, held, monkeypatch):
    def refuse(key, descriptors):
        os.close(descriptors[0])
        raise OSError

    monkeypatch.setattr(held, "hold", refuse)
    buffers.keep(GUEST, FIRST)
    assert trace_key(GUEST, FIRST) not in held.by_key


def test_the_brokers_hypercalls_and_bindings_are_recorded_but_not_those_that_read_the_trace(buffers):
    buffers.start()
    buffers.hypercall(GUEST, 0x2000, 8)
    buffers.hypercall_done(GUEST, 0x2000, 8, 13)
    buffers.hypercall(None, 0x2383, 1)
    buffers.hypercall_done(None, 0x2383, 1, 0)
    buffers.hypercall(None, 0x2482, 2)
    buffers.port_bound(GUEST, 3, 40, 1)
    assert records(buffers.read(*HYPERVISOR, 0, kept=True)) == [
        (Kind.BROKER, 0, os.getpid(), 0),
        (Kind.HYPERCALL, GUEST, 8, 0x2000),
        (Kind.HYPERCALL_DONE, GUEST, 8, 13),
        (Kind.HYPERCALL, TOOLSTACK, 2, 0x2482),
        (Kind.PORT_BOUND, 3, 40 << 32 | GUEST, 1),
    ]


def test_nothing_is_recorded_of_a_broker_that_is_not_traced(buffers, held):
    buffers.hypercall(GUEST, 0x2000, 8)
    buffers.port_bound(GUEST, 3, 40, 1)
    assert buffers.read(*HYPERVISOR, 0, kept=True) is None


def test_a_new_broker_goes_on_in_the_dead_ones_buffer(buffers, held, clock):
    buffers.start()
    buffers.hypercall(GUEST, 0x2000, 8)
    successor = TraceBuffers(held, clock)
    successor.start()
    successor.hypercall_done(GUEST, 0x2000, 8, 0)
    assert [kind for kind, *_ in records(successor.read(*HYPERVISOR, 0, kept=True))] == [
        Kind.BROKER, Kind.HYPERCALL, Kind.BROKER, Kind.HYPERCALL_DONE,
    ]  # fmt: skip


def test_a_session_has_trace_lease_s_from_each_time_it_is_read(buffers, clock):
    assert buffers.lease_left_s() is None
    buffers.start()
    clock.now_s += TRACE_LEASE_S - 1
    assert buffers.lease_left_s() == 1
    buffers.renew_lease()
    assert buffers.lease_left_s() == TRACE_LEASE_S
    clock.now_s += TRACE_LEASE_S
    assert buffers.lease_left_s() == 0
    buffers.end()
    assert buffers.lease_left_s() is None
