"""What mem-set, mem-max and a balloon's word make of a domain's bounds, its store and its next incarnation."""

from __future__ import annotations

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig, DomainConfig

MIB = 1024


@pytest.fixture
def guest(board):
    """Of 64 MiB that was built with 128, its sandbox on."""
    dom = board.boot("guest", memory=64, maxmem=128)
    board.h.take_sandbox_report(dom, {})
    return dom


def call(board, message, caller=DOM0):
    return handle(board.h, caller, message, board.now).value


def bounds(board, dom) -> list[int]:
    """What the kernel was told to hold it to, in order."""
    return [kib for _, domain, kib in board.hardware.named("bound_memory") if domain.domid == dom]


def node(board, dom, name) -> int:
    return int(board.h.store.read(DOM0, 0, f"/local/domain/{dom}/memory/{name}"))


def events(board) -> list[tuple[str, str]]:
    told = [event for _, event in board.hardware.named("publish")]
    return [(event.event, event.detail) for event in told if event.event.startswith("memory")]


def test_a_domain_finds_its_target_and_what_it_was_built_with(board, guest):
    assert (node(board, guest, "target"), node(board, guest, "static-max")) == (64 * MIB, 128 * MIB)
    plain = board.boot("plain", memory=32)
    assert (node(board, plain, "target"), node(board, plain, "static-max")) == (32 * MIB, 32 * MIB)


def test_more_is_in_force_at_once_and_the_domain_is_told(board, guest):
    call(board, m.DomctlMemSet(guest, 100 * MIB))
    assert node(board, guest, "target") == 100 * MIB
    assert bounds(board, guest) == [100 * MIB]
    assert board.hardware.named("events_pending")[-1] == ("events_pending", guest)
    assert events(board) == [("memory target", f"{100 * MIB} KiB")]


def test_less_is_in_force_when_the_domain_says_that_it_does_with_it(board, guest):
    call(board, m.DomctlMemSet(guest, 40 * MIB))
    assert bounds(board, guest) == [64 * MIB]
    call(board, m.MemorySetReservation(48 * MIB), guest)
    call(board, m.MemorySetReservation(40 * MIB), guest)
    assert bounds(board, guest) == [64 * MIB, 48 * MIB, 40 * MIB]
    assert events(board)[1:] == [
        ("memory", f"{48 * MIB} KiB, above its target of {40 * MIB} KiB"), ("memory", f"{40 * MIB} KiB"),
    ]  # fmt: skip


def test_a_domain_that_came_down_gets_no_more_by_saying_so(board, guest):
    call(board, m.DomctlMemSet(guest, 40 * MIB))
    call(board, m.MemorySetReservation(40 * MIB), guest)
    with pytest.raises(Refused, match="may have"):
        call(board, m.MemorySetReservation(41 * MIB), guest)
    call(board, m.DomctlMemMax(guest, 50 * MIB))
    call(board, m.MemorySetReservation(41 * MIB), guest)
    assert bounds(board, guest)[-1] == 50 * MIB


def test_nobody_is_asked_for_more_than_was_built(board, guest):
    with pytest.raises(Refused, match=r"memory_dynamic_max .* memory_static_max"):
        call(board, m.DomctlMemSet(guest, 128 * MIB + 1))
    assert (node(board, guest, "target"), bounds(board, guest), events(board)) == (64 * MIB, [], [])


def test_a_maximum_is_no_less_than_the_target_and_is_in_force_when_the_domain_has_come_down_to_it(board, guest):
    call(board, m.DomctlMemSet(guest, 40 * MIB))
    with pytest.raises(Refused, match="greater than or equal"):
        call(board, m.DomctlMemMax(guest, 39 * MIB))
    call(board, m.DomctlMemMax(guest, 50 * MIB))
    assert bounds(board, guest)[-1] == 64 * MIB
    call(board, m.MemorySetReservation(45 * MIB), guest)
    assert bounds(board, guest)[-1] == 50 * MIB


def test_a_maximum_above_what_was_built_is_of_no_use(board, guest):
    call(board, m.DomctlMemMax(guest, 1 << 40))
    assert bounds(board, guest) == [128 * MIB]


def test_a_target_outlives_the_incarnation_and_a_maximum_does_not(board, guest):
    call(board, m.DomctlMemSet(guest, 40 * MIB))
    call(board, m.MemorySetReservation(40 * MIB), guest)
    call(board, m.DomctlMemMax(guest, 100 * MIB))
    board.dies(guest)
    board.started(guest)
    memory = board.h.domains[guest].memory
    assert (memory.target, memory.maximum, memory.current, memory.bound) == (40 * MIB,) * 4
    assert node(board, guest, "target") == 40 * MIB


def test_a_new_configuration_is_what_the_next_incarnation_is_to_do_with(board, guest):
    call(board, m.DomctlMemSet(guest, 40 * MIB))
    call(board, m.DomctlSetConfig(guest, DomainConfig("guest", "hvd:idle", memory=32)))
    assert node(board, guest, "target") == 40 * MIB
    board.dies(guest)
    assert (node(board, guest, "target"), node(board, guest, "static-max")) == (32 * MIB, 32 * MIB)


def test_what_is_said_while_a_process_readies_itself_is_in_force_when_its_sandbox_is_on(board):
    dom = board.create("late", memory=64, maxmem=128)
    call(board, m.DomctlMemSet(dom, 96 * MIB))
    assert bounds(board, dom) == []
    board.started(dom)
    board.h.take_sandbox_report(dom, {})
    assert bounds(board, dom) == [96 * MIB]


def test_one_that_was_born_with_what_it_has_is_not_bound_again(board, guest):
    assert bounds(board, guest) == []


def test_one_that_does_not_run_is_to_start_with_the_target(board):
    dom = board.boot("kept", memory=64, on_crash="preserve")
    board.dies(dom)
    call(board, m.DomctlMemSet(dom, 16 * MIB))
    with pytest.raises(Refused, match="preserved"):
        call(board, m.DomctlMemMax(dom, 64 * MIB))
    board.h.request_shutdown(dom, reboot=True, grace_ms=0, now_ns=board.now)
    assert board.h.domains[dom].memory.bound == 16 * MIB


def test_pages_that_it_has_for_others_count_as_its_own(board, guest, monkeypatch):
    monkeypatch.setattr(board.hardware, "memory_used_kib", lambda domain: 1000)
    before = call(board, m.MemoryReservation(), guest)
    board.h.grants.allocate(guest, DOM0, 25, readonly=False)
    after = call(board, m.MemoryReservation(), guest)
    assert before["current"] == before["maximum"] == 64 * MIB
    assert after["used"] - before["used"] == 100


def test_a_spare_that_was_born_with_another_target_is_replaced(board):
    board.boot("driver", driver_domain=True)
    dom = board.boot("guest", spare=True, devices=[DeviceConfig("echo", 0, "driver")], maxmem=128)
    board.after(10**9)
    assert board.h.domains[dom].spare is not None
    call(board, m.DomctlMemSet(dom, 100 * MIB))
    assert board.h.domains[dom].spare is None
