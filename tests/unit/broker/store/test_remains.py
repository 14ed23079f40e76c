"""What nobody needs any more goes a little at a time, and nothing that somebody still has."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from hvd.broker.store import Store
from hvd.broker.store.domains import Domains
from hvd.broker.store.parts import in_parts
from hvd.broker.store.remains import STEPS_AT_ONCE, Remains
from hvd.broker.store.tree import Node, replace, subtree
from hvd.broker.store.watches import Watch
from hvd.transport.ids import DOM0
from tests.unit.broker.store.test_tree import grown, node


class Value(bytes):
    """A node's value whose end is counted."""

    ended = 0

    def __del__(self) -> None:
        Value.ended += 1


def wide(count: int) -> Node:
    root = grown("/a")
    for number in range(count):
        root = replace(root, f"/a/{number}", node(Value(b"%d" % number)), number)
    return root


def test_a_tree_goes_in_parts() -> None:
    remains = Remains()
    remains.add(wide(5000))
    ended = [Value.ended]
    while remains:
        remains.let_go()
        ended.append(Value.ended)
    assert ended[-1] - ended[0] == 5000
    assert max(after - before for before, after in pairwise(ended)) <= STEPS_AT_ONCE


def test_what_another_version_has_stays_and_is_not_walked() -> None:
    kept = wide(2000)
    before = list(subtree("/", kept))
    remains = Remains()
    remains.add(replace(kept, "/a/7", None, 9))
    remains.let_go()
    remains.let_go()
    assert not remains and list(subtree("/", kept)) == before


def test_a_store_lets_go_of_what_was_removed_and_of_what_a_transaction_had_and_is_the_same_meanwhile() -> None:
    store = Store()
    for number in range(1000):
        store.write(DOM0, 0, f"/gone/{number}", b"v")
    tx = store.transaction_start(DOM0)
    for number in range(1000):
        store.write(DOM0, tx, f"/never/{number}", b"v")
    store.rm(DOM0, 0, "/gone")
    while store.has_unsettled:
        store.settle()
    assert store.has_remains
    store.transaction_end(DOM0, tx, False)
    turns = 0
    while store.has_remains:
        store.let_go()
        turns += 1
        assert store.directory(DOM0, 0, "/") == [] and not store.check()
    assert turns > 1000 // STEPS_AT_ONCE


def test_of_a_commit_that_is_told_in_slices_nothing_is_let_go_before_it_is_told() -> None:
    store = Store()
    tx = store.transaction_start(DOM0)
    for number in range(500):
        store.write(DOM0, tx, f"/made/{number}", b"v")
    store.watch(DOM0, "/made", "token")
    store.take_events()
    store.transaction_end(DOM0, tx, True)
    while store.has_unsettled:
        store.let_go()
        store.settle()
    assert len(store.take_events()) == 500
    assert not store.check()


@pytest.mark.parametrize("written", [1, 30, None])
def test_what_only_a_snapshot_in_parts_has_any_more_goes_in_parts_when_it_is_whole_or_given_up(
    written: int | None,
) -> None:
    remains, roots, watches = Remains(), [wide(5000)], [Watch(DOM0, f"/{n}", "t", relative=False) for n in range(300)]
    before = Value.ended
    parts = in_parts(roots, watches, Domains(), remains)
    list(islice(parts, written))
    del roots
    parts.close()
    del parts
    assert Value.ended == before, "not at once"
    ended = [before]
    while remains:
        remains.let_go()
        ended.append(Value.ended)
    assert ended[-1] - before == 5000
    assert max(after - first for first, after in pairwise(ended)) <= STEPS_AT_ONCE


def test_what_only_a_check_has_any_more_goes_in_parts(store: Store) -> None:
    for number in range(1000):
        store.write(DOM0, 0, f"/gone/{number}", Value(b"v"))
    before = Value.ended
    assert store.check_some() is None
    store.rm(DOM0, 0, "/gone")
    while store.has_unsettled or store.has_remains:
        store.settle()
        store.let_go()
    while store.check_some() is None:
        pass
    assert Value.ended == before and store.has_remains
    while store.has_remains:
        store.let_go()
    assert Value.ended - before == 1000


@pytest.mark.parametrize("written", [0, 1, None])
def test_what_a_transaction_touched_is_let_go_when_no_snapshot_asks_for_it(store: Store, written: int | None) -> None:
    tx = store.transaction_start(DOM0)
    for number in range(500):
        store.write(DOM0, tx, f"/touched/{number}", b"")
    record = store._engine.domains[DOM0].transactions[tx].record
    with store.in_parts() as parts:
        store.transaction_end(DOM0, tx, False)
    for _ in range(10):
        store.let_go()
    assert len(record) > 500 and store.has_remains
    list(islice(parts, written))
    del parts
    while store.has_remains:
        store.let_go()
    assert not record.by_path
