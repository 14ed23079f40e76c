"""What has gone and still counts: whenever a quota has it counted, the accounts are those of the tree from then on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.broker.store import Store
from hvd.broker.store.accounts import Tally, growth_of
from hvd.broker.store.changes import Edit, Fires
from hvd.broker.store.children import CHUNK_MAX
from hvd.broker.store.sweeps import EDITS_PER_SLICE
from hvd.broker.store.tree import subtree
from hvd.transport._native import tally
from hvd.transport.errors import LocalError
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)
NAMES = st.sampled_from(["a", "b", "long-name", "c0"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/gone/" + "/".join(names))
NODES = st.lists(st.tuples(PATHS, st.sampled_from([DOM0, FIVE, SEVEN]), st.binary(max_size=9)), max_size=25)


def filled(nodes: list[tuple[str, DomId, bytes]]) -> Store:
    store = Store()
    for domid in (FIVE, SEVEN):
        store.introduce(domid)
    store.write(DOM0, 0, "/gone", b"")
    store.write(DOM0, 0, "/stays", b"")
    for path, owner, value in nodes:
        store.write(DOM0, 0, path, value)
        store.set_perms(DOM0, 0, path, [f"n{owner}", "r5"][: 1 + len(value) % 2])
    store.take_events()
    return store


def accounts_of(store: Store) -> dict[DomId, Tally]:
    return {domid: store._engine.accounts.of(domid) for domid in (DOM0, FIVE, SEVEN)}


def of_the_tree(store: Store) -> dict[DomId, Tally]:
    growth = growth_of([Edit(path, None, node, Fires.NOBODY) for path, node in subtree("/", store._engine.root)])
    return {domid: growth.get(domid, Tally()) for domid in (DOM0, FIVE, SEVEN)}


@settings(deadline=None)
@given(nodes=NODES, skipped=st.integers(0, 30))
def test_the_native_walk_counts_what_a_walk_in_python_does(nodes: list[tuple[str, DomId, bytes]], skipped: int) -> None:
    store = filled(nodes)
    gone = store._engine.root.children["gone"]
    told = [Edit(path, None, node, Fires.NOBODY) for path, node in subtree("/gone", gone)][skipped:]
    expected = {owner: (each.nodes, each.bytes) for owner, each in growth_of(told).items()}
    assert {owner: (count, size) for owner, count, size in tally(gone, len("/gone"), skipped)} == expected


@settings(deadline=None, max_examples=40)
@given(slices=st.integers(0, 8), count=st.integers(1, 4 * EDITS_PER_SLICE), by_forgetting=st.booleans())
def test_counted_after_any_slice_the_accounts_are_those_of_the_tree(
    slices: int, count: int, by_forgetting: bool
) -> None:
    store = filled([(f"/gone/{each % 7}/{each}", (FIVE, SEVEN)[each % 2], b"v" * (each % 3)) for each in range(count)])
    store.set_perms(DOM0, 0, "/gone", ["n7"])
    if by_forgetting:
        store.forget_domain(SEVEN)
    else:
        store.rm(DOM0, 0, "/gone")
    for _ in range(slices):
        store.settle()
    store._engine._departures.count_all()
    assert accounts_of(store) == of_the_tree(store)
    assert not store._engine._departures.count_all()
    while store.has_unsettled:
        store.settle()
        assert accounts_of(store) == of_the_tree(store)
    assert not store._engine._departures._under_way and not store.check()


def test_of_a_wide_directory_all_are_counted() -> None:
    store = filled([(f"/gone/{each}", FIVE, b"v") for each in range(2 * CHUNK_MAX + 3)])
    assert sorted(tally(store._engine.root.children["gone"], len("/gone"), 0))[1][:2] == (FIVE, 2 * CHUNK_MAX + 3)


@pytest.mark.parametrize("permissions", [None, (), ((),), (("x",),)])
def test_what_is_no_node_is_refused(permissions: object) -> None:
    node = Store()._engine.root
    with pytest.raises((LocalError, TypeError)):
        tally(node._replace(permissions=permissions), 1, 0)  # type: ignore[arg-type]
    with pytest.raises(LocalError):
        tally(node._replace(value="text"), 1, 0)  # type: ignore[arg-type]
