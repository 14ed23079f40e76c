"""A commit beside many changes of others: it catches up in slices, and is what it would have been at once."""

import errno
import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd.broker.store import Quotas, Store, StoreError, catching_up, merge, transactions
from hvd.broker.store.catching_up import ROUNDS_MAX, STEPS_PER_SLICE
from hvd.transport.ids import DOM0, DomId
from tests.unit.broker.store.test_direct import tree_of

FIVE = DomId(5)
MANY = 10 * STEPS_PER_SLICE


def busy(store: Store, domid: DomId = DOM0) -> int:
    """A transaction that has written many nodes, beside which as many others were."""
    for number in range(MANY):
        store.write(DOM0, 0, f"/mine/{number % 7}/{number}", b"old")
        store.write(DOM0, 0, f"/theirs/{number % 7}/{number}", b"old")
    tx = store.transaction_start(domid, connection=-2)
    for number in range(MANY):
        store.write(domid, tx, f"/mine/{number % 7}/{number}", b"mine")
        store.write(DOM0, 0, f"/theirs/{number % 7}/{number}", b"theirs")
    return tx


def settle(store: Store) -> None:
    while store.has_unsettled:
        store.settle()


def asked(store: Store, tx: int) -> int:
    """How often, until it has little to do."""
    times = 1
    while not store.may_commit_now(DOM0, tx):
        times += 1
    return times


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many nodes were compared, merged or checked since it was set to [0]."""
    count = [0]

    def counting(where: Any, name: str) -> None:
        plain = getattr(where, name)

        def counted(*args: Any) -> Any:
            count[0] += 1
            return plain(*args)

        monkeypatch.setattr(where, name, counted)

    counting(transactions.Touched, "conflicts")
    counting(merge, "_merge_child")
    counting(catching_up, "lookup")
    return count


def test_no_step_of_a_commit_looks_at_more_nodes_than_a_slice_has(store: Store, looked_at: list[int]) -> None:
    tx, most, ready = busy(store), 0, False
    while not ready:
        looked_at[0] = 0
        ready = store.may_commit_now(DOM0, tx)
        most = max(most, looked_at[0])
    assert most == STEPS_PER_SLICE
    looked_at[0] = 0
    store.transaction_end(DOM0, tx, True)
    assert looked_at[0] == 0, "nothing is left for the commit itself"
    settle(store)
    assert store.read(DOM0, 0, "/mine/0/0") == b"mine" and store.read(DOM0, 0, "/theirs/0/0") == b"theirs"
    assert not store.check()


def test_a_small_commit_and_one_beside_which_nothing_happened_are_made_at_once(store: Store) -> None:
    tx = store.transaction_start(DOM0)
    for number in range(MANY):
        store.write(DOM0, tx, f"/made/{number}", b"")
    assert store.may_commit_now(DOM0, tx)
    store.write(DOM0, 0, "/other", b"")
    few = store.transaction_start(DOM0)
    store.write(DOM0, few, "/few", b"")
    store.write(DOM0, 0, "/other", b"again")
    assert store.may_commit_now(DOM0, few)


def test_what_others_change_meanwhile_is_another_rounds_and_a_conflict_is_found_in_any(store: Store) -> None:
    tx = busy(store)
    for _ in range(3):
        assert not store.may_commit_now(DOM0, tx)
    store.write(DOM0, 0, "/mine/0/0", b"theirs after all")
    asked(store, tx)
    with pytest.raises(StoreError, match="/mine/0/0 has changed") as refused:
        store.transaction_end(DOM0, tx, True)
    assert refused.value.errno == errno.EAGAIN
    assert store.read(DOM0, 0, "/mine/0/0") == b"theirs after all" and store.read(DOM0, 0, "/mine/1/1") == b"old"


def test_beside_others_who_never_stop_it_is_made_in_the_end(store: Store) -> None:
    tx, number = busy(store), 0
    while not store.may_commit_now(DOM0, tx):
        number += 1
        for each in range(STEPS_PER_SLICE):
            store.write(DOM0, 0, f"/theirs/{each % 7}/{each}", b"%d" % number)
    assert number >= ROUNDS_MAX
    store.transaction_end(DOM0, tx, True)
    settle(store)
    assert store.read(DOM0, 0, "/mine/0/0") == b"mine" and not store.check()


def test_children_that_two_sides_made_are_together_too_many_for_a_node() -> None:
    store = Store(Quotas(node_bytes_max=1500, nodes_max=5000))
    store.introduce(FIVE)
    store.write(DOM0, 0, "/local/domain/5/parent", b"")
    for path in ("/local/domain/5", "/local/domain/5/parent"):
        store.set_perms(DOM0, 0, path, ["n5"])
    tx = store.transaction_start(FIVE)
    for number in range(200):
        store.write(FIVE, tx, f"parent/m{number}", b"")
        store.write(FIVE, 0, f"parent/t{number}", b"")
    while not store.may_commit_now(FIVE, tx):
        pass
    with pytest.raises(StoreError) as refused:
        store.transaction_end(FIVE, tx, True)
    assert refused.value.errno == errno.ENOSPC and not store.check()


def test_a_snapshot_in_the_middle_has_it_begin_the_round_anew_here_and_there(store: Store) -> None:
    tx = busy(store)
    for _ in range(3):
        store.may_commit_now(DOM0, tx)
    successor = pickle.loads(pickle.dumps(store))
    for each in (store, successor):
        each.write(DOM0, 0, "/theirs/0/another", b"")
    assert asked(store, tx) == asked(successor, tx)
    for each in (store, successor):
        each.transaction_end(DOM0, tx, True)
        settle(each)
    assert tree_of(store) == tree_of(successor) and store.statistics() == successor.statistics()


def test_a_connection_that_ends_in_the_middle_leaves_nothing_behind(store: Store) -> None:
    tx = busy(store)
    store.may_commit_now(DOM0, tx)
    store.close_connection(DOM0, -2)
    assert store.usage(DOM0).transactions == 0 and store.has_unsettled and not store.is_settling(DOM0)
    settle(store)
    while store.has_remains:
        store.let_go()
    assert store.read(DOM0, 0, "/mine/0/0") == b"old" and not store.check()


PATHS = ["/a", "/a/b", "/a/c", "/a/c/d", "/e", "/f/g"]
NAMES = st.sampled_from(["write", "rm", "read", "directory"])
CHANGES = st.lists(st.tuples(NAMES, st.sampled_from(PATHS)), max_size=12)


def change(store: Store, tx: int, name: str, path: str, value: bytes) -> None:
    with suppress(StoreError):
        getattr(store, name)(DOM0, tx, path, *([value] if name == "write" else []))


def outcome(store: Store, tx: int) -> Any:
    try:
        store.transaction_end(DOM0, tx, True)
    except StoreError as error:
        return error.errno
    finally:
        settle(store)
    return {path: value for path, value, _ in tree_of(store)}


@given(mine=CHANGES, theirs=st.lists(CHANGES, min_size=1, max_size=4))
def test_whoever_catches_up_is_told_what_one_who_commits_at_once_is_told(
    mine: list[tuple[str, str]], theirs: list[list[tuple[str, str]]]
) -> None:
    slow, fast = Store(), Store()
    for store in (slow, fast):
        for path in PATHS[:4]:
            store.write(DOM0, 0, path, b"base")
        tx = store.transaction_start(DOM0)
        for name, path in mine:
            change(store, tx, name, path, b"mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catching_up, "STEPS_PER_SLICE", 2)
        for some in theirs:
            for store in (slow, fast):
                for name, path in some:
                    change(store, 0, name, path, b"theirs")
            slow.may_commit_now(DOM0, tx)
        while not slow.may_commit_now(DOM0, tx):
            pass
    assert outcome(slow, tx) == outcome(fast, tx)
    assert not slow.check()
    seen, other = slow.statistics(), fast.statistics()
    assert (seen.nodes, seen.domains) == (other.nodes, other.domains)
