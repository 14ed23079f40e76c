"""A store that was pickled and loaded again goes on exactly as the original would have."""

import copy
import pickle
from collections.abc import Callable

import pytest

from hvd.broker.store import Store, StoreError
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)
HOME = "/local/domain/5"


def by_pickle(store: Store) -> Store:
    copied: Store = pickle.loads(pickle.dumps(store))
    return copied


COPIES: list[Callable[[Store], Store]] = [by_pickle, copy.deepcopy]


def busy(store: Store) -> tuple[Store, int, int]:
    """A store in the middle of everything: two open transactions, waiting events, a domain forgotten."""
    store.write(FIVE, 0, "a/b", b"1")
    store.set_perms(FIVE, 0, "a", ["n5", "r7"])
    store.watch(SEVEN, f"{HOME}/a", "seven")
    store.watch(FIVE, "a", "five")
    store.set_perms(DOM0, 0, "@releaseDomain", ["n0", "r7"])
    store.watch(SEVEN, "@releaseDomain", "out")
    store.forget_domain(DomId(3))
    first = store.transaction_start(FIVE)
    store.write(FIVE, first, "a/c", b"first")
    store.write(FIVE, 0, "d", b"between")
    second = store.transaction_start(DOM0)
    store.read(DOM0, second, f"{HOME}/a/b")
    store.write(DOM0, second, f"{HOME}/e", b"second")
    return store, first, second


def tree_of(store: Store, path: str = "/") -> list[tuple[str, bytes, list[str], bytes]]:
    found = [(path, store.read(DOM0, 0, path), store.get_perms(DOM0, 0, path), store.directory_part(DOM0, 0, path, 0))]
    for name in store.directory(DOM0, 0, path):
        found += tree_of(store, f"{path.rstrip('/')}/{name}")
    return found


def outcome(store: Store, first: int, second: int) -> list[object]:
    """Everything observable of a store and of how it goes on."""
    seen: list[object] = [tree_of(store), store.statistics(), store.read(FIVE, first, "a/c")]
    store.write(FIVE, 0, "a/b", b"2")
    for domid, tx in ((FIVE, first), (DOM0, second)):
        try:
            store.transaction_end(domid, tx, True)
        except StoreError as error:
            seen.append(str(error))
    seen.append(store.transaction_start(FIVE))
    store.introduce(DomId(3))
    store.release(DomId(3))
    with pytest.raises(StoreError, match="EEXIST: "):
        store.watch(FIVE, "a", "five")
    store.set_perms(DOM0, 0, f"{HOME}/a", ["n5", "r3"])
    store.forget_domain(FIVE)
    return [*seen, store.take_events(), tree_of(store), store.statistics()]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_in_the_middle_of_transactions_goes_on_like_the_original(
    store: Store, copied: Callable[[Store], Store]
) -> None:
    original, first, second = busy(store)
    restored = copied(original)
    result = outcome(restored, first, second)
    assert result == outcome(original, first, second)
    assert "EAGAIN" in str(result), "the second transaction read what was written after the snapshot"


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_and_its_original_share_nothing(store: Store, copied: Callable[[Store], Store]) -> None:
    original, first, _ = busy(store)
    restored = copied(original)
    before = tree_of(original), original.statistics()
    restored.write(FIVE, first, "a/x", b"")
    restored.transaction_end(FIVE, first, True)
    restored.rm(DOM0, 0, HOME)
    restored.forget_domain(SEVEN)
    restored.take_events()
    assert (tree_of(original), original.statistics()) == before


def test_a_store_rebuilt_by_the_same_calls_is_the_same(store: Store) -> None:
    other = by_pickle(store)
    busy(store)
    busy(other)
    assert (tree_of(store), store.statistics(), store.take_events()) == (
        tree_of(other),
        other.statistics(),
        other.take_events(),
    )


def test_a_snapshot_holds_what_versions_share_only_once() -> None:
    store = Store()
    for number in range(300):
        store.write(DOM0, 0, f"/many/{number}", bytes([number % 256, number // 256]) * 500)
    alone = len(pickle.dumps(store))
    for number in range(20):
        store.write(DOM0, 0, f"/many/{number}", b"w")
        store.transaction_start(DOM0)
    assert len(pickle.dumps(store)) < 1.3 * alone
    assert by_pickle(store).statistics() == store.statistics()


def test_no_depth_exhausts_the_stack_when_pickling() -> None:
    store = Store()
    store.write(DOM0, 0, "/a" * 1024, b"deepest")
    tx = store.transaction_start(DOM0)
    store.write(DOM0, tx, "/a" * 1023 + "/b", b"")
    restored = by_pickle(store)
    restored.transaction_end(DOM0, tx, True)
    assert restored.read(DOM0, 0, "/a" * 1024) == b"deepest"
    assert restored.directory(DOM0, 0, "/a" * 1023) == ["a", "b"]
    restored.rm(DOM0, 0, "/a")
    while restored.has_unsettled:
        restored.settle()
    assert restored.statistics().nodes == 1
