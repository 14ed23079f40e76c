"""Who owns how much: exact through every way in which a node comes, goes and changes hands."""

from collections import Counter

import pytest

from hvd.broker.store import Store, StoreError
from hvd.broker.store.accounts import Accounts
from hvd.broker.store.changes import Edit, Fires
from hvd.broker.store.permissions import DOM0_ONLY, Permission, Permissions, Principal
from hvd.broker.store.record import KEPT_IN_BYTES
from hvd.broker.store.tree import leaf, replace
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)


def counted(store: Store) -> dict[DomId, int]:
    """The nodes of each owner, counted one by one."""
    owners: Counter[DomId] = Counter()
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        owners[DomId(int(store.get_perms(DOM0, 0, path)[0][1:]))] += 1
        waiting += [f"{path.rstrip('/')}/{name}" for name in store.directory(DOM0, 0, path)]
    return dict(owners)


def told(store: Store) -> dict[DomId, int]:
    return {domid: domain.nodes for domid, domain in store.statistics().domains.items() if domain.nodes}


@pytest.fixture
def store(store: Store) -> Store:
    store.write(FIVE, 0, "shared/a", b"1")
    store.set_perms(FIVE, 0, "shared", ["b5"])
    store.write(SEVEN, 0, "/local/domain/5/shared/b/c", b"2")
    return store


def test_a_guest_is_charged_for_what_it_creates_wherever_that_is(store: Store) -> None:
    assert told(store) == {DOM0: 3, DomId(3): 1, FIVE: 3, SEVEN: 3}
    assert counted(store) == told(store)


def test_dom0_creates_on_the_parents_owners_account(store: Store) -> None:
    store.write(DOM0, 0, "/local/domain/5/made/by/dom0", b"")
    assert told(store)[FIVE] == 6
    assert counted(store) == told(store)


def test_removing_credits_every_owner_below(store: Store) -> None:
    store.rm(FIVE, 0, "shared")
    assert told(store) == {DOM0: 3, DomId(3): 1, FIVE: 1, SEVEN: 1}


def test_xsa_352_only_dom0_gives_nodes_away_and_then_the_new_owner_is_charged(store: Store) -> None:
    with pytest.raises(StoreError, match="EPERM: "):
        store.set_perms(FIVE, 0, "shared/a", ["n7"])
    assert counted(store) == told(store) == {DOM0: 3, DomId(3): 1, FIVE: 3, SEVEN: 3}
    store.set_perms(DOM0, 0, "/local/domain/5/shared/a", ["n7"])
    assert counted(store) == told(store) == {DOM0: 3, DomId(3): 1, FIVE: 2, SEVEN: 4}


@pytest.mark.parametrize("intervening", [False, True])
@pytest.mark.parametrize("commit", [False, True])
def test_a_transaction_counts_when_it_commits(store: Store, commit: bool, intervening: bool) -> None:
    before = told(store)
    tx = store.transaction_start(DOM0)
    store.set_perms(DOM0, tx, "/local/domain/5/shared/a", ["n7"])
    store.write(DOM0, tx, "/local/domain/5/x/y", b"")
    store.rm(DOM0, tx, "/local/domain/5/shared/b")
    store.write(DOM0, tx, "/local/domain/5/shared/b", b"")
    store.write(DOM0, tx, "/local/domain/7/short/lived", b"")
    store.rm(DOM0, tx, "/local/domain/7/short")
    assert told(store) == before
    if intervening:
        store.write(DOM0, 0, "/elsewhere", b"")
        before[DOM0] += 1
    store.transaction_end(DOM0, tx, commit)
    after = {**before, FIVE: before[FIVE] - 1 + 2 + 1, SEVEN: before[SEVEN] + 1 - 2}
    assert counted(store) == told(store) == (after if commit else before)


def test_a_commit_that_fails_counts_nothing(store: Store) -> None:
    tx = store.transaction_start(FIVE)
    store.write(FIVE, tx, "x/y/z", b"")
    store.write(FIVE, 0, "x", b"")
    with pytest.raises(StoreError, match="EAGAIN: "):
        store.transaction_end(FIVE, tx, True)
    assert counted(store) == told(store)


def test_bytes_follow_values_permissions_and_paths(store: Store) -> None:
    def bytes_of_five() -> int:
        return store.statistics().domains[FIVE].bytes

    before = bytes_of_five()
    store.write(FIVE, 0, "shared/a", b"1" * 101)
    assert bytes_of_five() == before + 100
    store.set_perms(FIVE, 0, "shared/a", ["n5", "r7"])
    assert bytes_of_five() == before + 100 + 8
    store.mkdir(FIVE, 0, "shared/d")
    assert bytes_of_five() == before + 100 + 8 + 24 + 8 + len("/local/domain/5/shared/d")
    store.rm(FIVE, 0, "shared/d")
    store.watch(FIVE, "x", "token")
    assert bytes_of_five() == before + 100 + 8 + len("/local/domain/5/x") + len("token")
    store.unwatch(FIVE, "x", "token")
    tx = store.transaction_start(FIVE)
    store.read(FIVE, tx, "shared/a")
    assert bytes_of_five() == before + 100 + 8 + 24 + KEPT_IN_BYTES + len("/local/domain/5/shared/a")
    store.transaction_end(FIVE, tx, False)
    assert bytes_of_five() == before + 100 + 8


def owned_by(domid: int) -> Permissions:
    return (Permission(Principal(DomId(domid), 1), 0),)


def test_accounts_made_from_a_tree_are_those_kept_from_edit_to_edit() -> None:
    root = leaf(b"", DOM0_ONLY, 1)
    kept = Accounts(root)
    for path, owner in (("/a", 5), ("/a/b", 5), ("/a/c", 7)):
        node = leaf(b"v", owned_by(owner), 2)
        root = replace(root, path, node, 2)
        kept.settle([Edit(path, None, node, Fires.NOBODY)], root)
    for accounts in (kept, Accounts(root)):
        assert (accounts.of(FIVE).nodes, accounts.of(SEVEN).nodes, accounts.of(DOM0).nodes) == (2, 1, 1)
        assert accounts.owned_by(FIVE) == ["/a", "/a/b"]
        assert accounts.nodes() == 4
    assert Accounts(root).of(FIVE) == kept.of(FIVE)


def test_an_owner_of_nothing_is_not_in_the_books() -> None:
    node, empty = leaf(b"v", owned_by(5), 2), leaf(b"", DOM0_ONLY, 1)
    root = replace(empty, "/a", node, 2)
    accounts = Accounts(empty)
    accounts.settle([Edit("/a", None, node, Fires.NOBODY)], root)
    with pytest.raises(AssertionError, match="still owns"):
        accounts.forget(FIVE)
    accounts = Accounts(empty)
    accounts.settle([Edit("/a", None, node, Fires.NOBODY)], root)
    accounts.settle([Edit("/a", node, None, Fires.NOBODY)], empty)
    accounts.forget(FIVE)
    assert (accounts.of(FIVE).nodes, accounts.of(FIVE).bytes, accounts.owned_by(FIVE)) == (0, 0, [])
