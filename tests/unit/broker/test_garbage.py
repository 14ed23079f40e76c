"""Nothing that lives long ends in a cycle: so nobody has to look for garbage among what is old."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hvd.broker import garbage
from hvd.broker.xenstored.requests import answer
from hvd.transport.ids import DOM0
from hvd.transport.xs_wire import Message, Type


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector's settings, as they were before, and what is frozen (tests/conftest.py)."""
    thresholds, callbacks, frozen = gc.get_threshold(), list(gc.callbacks), gc.get_freeze_count()
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks
    gc.enable()
    gc.unfreeze()
    if frozen:
        gc.collect()
        gc.freeze()


def test_what_has_lived_through_two_collections_is_not_looked_at_again(collector: None) -> None:
    garbage.look_at_the_young_only()
    kept = [[number] for number in range(5000)]
    frozen = gc.get_freeze_count()
    gc.collect(1)
    assert gc.get_freeze_count() - frozen >= len(kept)
    assert gc.get_threshold()[2] == garbage.NEVER


def test_a_young_cycle_is_found(collector: None) -> None:
    garbage.look_at_the_young_only()
    before = gc.get_stats()[0]["collected"]
    for _ in range(5 * garbage.YOUNG):
        cycle: list[object] = []
        cycle.append(cycle)
    assert gc.get_stats()[0]["collected"] - before > 3 * garbage.YOUNG


def test_no_life_of_a_domain_and_no_request_leaves_a_cycle(board, collector):
    store = board.h.store
    gc.collect()
    gc.disable()
    for number in range(20):
        dom = board.boot(f"mortal-{number}")
        for kind, payload in (
            (Type.WATCH, b"data\0token\0"), (Type.WRITE, b"data/x\0v"), (Type.READ, b"/nope\0"),
            (Type.TRANSACTION_START, b"\0"), (Type.READ, b"bad//\0"), (Type.RM, b"data\0"),
        ):  # fmt: skip
            answer(board.h, dom, 7, Message(kind, 1, 0, payload))
        board.h.destroy(dom, board.now)
        board.dies(dom)
        while store.has_unsettled:
            store.settle()
        while store.has_remains:
            store.let_go()
    assert list(board.h.domains) == [DOM0]
    board.hardware.calls.clear()
    assert gc.collect() == 0
