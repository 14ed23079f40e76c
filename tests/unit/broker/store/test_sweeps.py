"""Changes of many nodes: the tree has changed at once, accounts and watches follow a few nodes at a time."""

import errno
import pickle

import pytest

from hvd.broker.store import Store, StoreError
from hvd.broker.store.sweeps import EDITS_PER_SLICE
from hvd.transport.ids import DOM0, DomId

FIVE = DomId(5)
MANY = 5 * EDITS_PER_SLICE


def fill(store: Store, domid: DomId, path: str, count: int = MANY) -> None:
    for number in range(count):
        store.write(domid, 0, f"{path}/{number}", b"")
    store.take_events()


def settled(store: Store) -> int:
    """How many slices it took."""
    slices = 0
    while store.has_unsettled:
        store.settle()
        slices += 1
    return slices


def test_what_is_removed_is_gone_at_once_and_its_watches_hear_slice_by_slice(store: Store) -> None:
    before = store.statistics().nodes
    fill(store, DOM0, "/many")
    for number in (0, MANY - 1):
        store.watch(DOM0, f"/many/{number}", "below")
    store.watch(DOM0, "/many", "above")
    store.take_events()
    store.rm(DOM0, 0, "/many")
    with pytest.raises(StoreError, match="ENOENT"):
        store.read(DOM0, 0, f"/many/{MANY - 1}")
    assert [event.path for event in store.take_events()] == ["/many/0"]
    assert store.is_settling(DOM0) and not store.is_settling(FIVE)
    assert settled(store) >= MANY // EDITS_PER_SLICE - 1
    assert [event.path for event in store.take_events()] == [f"/many/{MANY - 1}", "/many"]
    assert store.statistics().nodes == before and not store.check()


def test_a_commit_is_there_at_once_and_is_settled_slice_by_slice(store: Store) -> None:
    before = store.usage(FIVE).nodes
    tx = store.transaction_start(FIVE)
    for number in range(MANY):
        store.write(FIVE, tx, f"many/{number}", b"v")
    store.transaction_end(FIVE, tx, True)
    assert store.read(FIVE, 0, f"many/{MANY - 1}") == b"v"
    assert store.is_settling(FIVE) and store.usage(FIVE).nodes == before + MANY + 1
    assert settled(store) >= MANY // EDITS_PER_SLICE - 1 and not store.check()
    store.forget_domain(FIVE)
    assert not store.check()


def test_whoever_makes_again_what_is_being_removed_owns_it(store: Store) -> None:
    before = store.usage(FIVE).nodes
    fill(store, FIVE, "many")
    store.rm(FIVE, 0, "many")
    store.write(FIVE, 0, f"many/{MANY - 1}", b"again")
    settled(store)
    assert not store.check() and store.usage(FIVE).nodes == before + 2
    store.forget_domain(FIVE)
    with pytest.raises(StoreError, match="ENOENT"):
        store.read(DOM0, 0, "/local/domain/5")


def test_a_change_beside_one_that_is_under_way_counts_at_once(store: Store) -> None:
    fill(store, DOM0, "/many")
    store.rm(DOM0, 0, "/many")
    before = store.usage(FIVE).nodes
    store.write(FIVE, 0, "data/x", b"")
    assert store.usage(FIVE).nodes == before + 2 and store.is_settling(DOM0) and not store.is_settling(FIVE)


def test_a_quota_counts_what_is_gone_as_gone(store: Store) -> None:
    for number in range(2):
        fill(store, FIVE, f"many/{number}", 480)
    store.rm(DOM0, 0, "/local/domain/5/many")
    assert store.usage(FIVE).nodes > 800
    for number in range(2):
        fill(store, FIVE, f"more/{number}", 480)
    with pytest.raises(StoreError) as refused:
        fill(store, FIVE, "yet-more", 50)
    assert refused.value.errno == errno.ENOSPC and not store.check()


def test_a_snapshot_has_nothing_under_way(store: Store) -> None:
    fill(store, DOM0, "/many")
    store.watch(DOM0, "/many", "above")
    store.take_events()
    store.rm(DOM0, 0, "/many")
    restored = pickle.loads(pickle.dumps(store))
    assert not restored.has_unsettled and not store.has_unsettled
    assert [event.token for event in restored.take_events()] == ["above"] and not restored.check()


def test_a_domain_can_be_forgotten_in_the_middle_of_its_removal(store: Store) -> None:
    fill(store, FIVE, "many")
    store.rm(FIVE, 0, "many")
    store.forget_domain(FIVE)
    assert not store.has_unsettled and not store.check()
