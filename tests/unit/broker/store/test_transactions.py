"""What a transaction depends on, and therefore when its commit fails."""

import errno
import pickle
from collections.abc import Callable

import pytest

from hvd.broker.store import Quotas, Store, StoreError
from hvd.broker.store.changes import Change, Edit, Fires
from hvd.broker.store.domains import Client
from hvd.broker.store.permissions import DOM0_ONLY, DOM0_PRINCIPAL
from hvd.broker.store.record import KEPT_IN_BYTES
from hvd.broker.store.transactions import Transaction
from hvd.broker.store.tree import leaf, replace
from hvd.transport.ids import DOM0, DomId

from .conftest import store_with_guests

GUEST = DomId(5)

Step = Callable[[Store, int], object]
"""What a domain does, inside the given transaction or outside of any (0)."""


def reading(path: str) -> Step:
    return lambda store, tx: store.read(DOM0, tx, path)


def missing(path: str) -> Step:
    def step(store: Store, tx: int) -> None:
        with pytest.raises(StoreError, match="ENOENT: "):
            store.read(DOM0, tx, path)

    return step


def listing(path: str) -> Step:
    return lambda store, tx: store.directory(DOM0, tx, path)


def writing(path: str) -> Step:
    return lambda store, tx: store.write(DOM0, tx, path, b"written")


def making(path: str) -> Step:
    return lambda store, tx: store.mkdir(DOM0, tx, path)


def removing(path: str) -> Step:
    return lambda store, tx: store.rm(DOM0, tx, path)


def permitting(path: str) -> Step:
    return lambda store, tx: store.set_perms(DOM0, tx, path, ["r5"])


def in_turn(*steps: Step) -> Step:
    def step(store: Store, tx: int) -> None:
        for each in steps:
            each(store, tx)

    return step


def replacing(path: str) -> Step:
    def step(store: Store, tx: int) -> None:
        value = store.read(DOM0, tx, path)
        store.rm(DOM0, tx, path)
        store.write(DOM0, tx, path, value)

    return step


def nothing(_store: Store, _tx: int) -> None:
    return


CONFLICTS: list[tuple[str, Step, Step]] = [
    ("a value that was read", reading("/a/b"), writing("/a/b")),
    ("permissions of what was read", reading("/a/b"), permitting("/a/b")),
    ("what was read is gone", reading("/a/b"), removing("/a/b")),
    ("what was read is gone with its parent", reading("/a/b"), removing("/a")),
    ("what was read is another node with the same value", reading("/a/b"), replacing("/a/b")),
    ("what was missing is there", missing("/a/x"), making("/a/x")),
    ("what was missing deep below is there", missing("/a/x/y"), writing("/a/x/y")),
    ("a node on the way to what was missing is there", missing("/a/x/y"), making("/a/x")),
    ("a listed node has a new child", listing("/a"), making("/a/x")),
    ("a listed node lost a child", listing("/a"), removing("/a/c")),
    ("a listed node, then read, lost a child", in_turn(listing("/a"), reading("/a")), removing("/a/c")),
    ("what was written has been written", writing("/a/b"), writing("/a/b")),
    ("what was written is gone", writing("/a/b"), removing("/a/b")),
    ("what was created has been created", making("/a/x"), making("/a/x")),
    ("what was created on the way has been created", making("/a/x/y"), making("/a/x/z")),
    ("the parent of what was created is gone", making("/a/x"), removing("/a")),
    ("the parent of what was created is somebody else's", making("/a/x"), permitting("/a")),
    ("what was removed has been written", removing("/a/b"), writing("/a/b")),
    ("what was removed has a new child", removing("/a"), making("/a/b/x")),
    ("what was removed has a changed grandchild", removing("/a"), writing("/a/b/d")),
    ("what was removed is gone", removing("/a"), removing("/a")),
    ("permissions set twice", permitting("/a"), permitting("/a")),
]

HARMONIES: list[tuple[str, Step, Step]] = [
    ("nothing", nothing, writing("/a/b")),
    ("different values", reading("/a/b"), writing("/a/c")),
    ("a child below what was read", reading("/a"), making("/a/x")),
    ("a value below what was listed", listing("/a"), writing("/a/b")),
    ("children of one parent", making("/a/x"), making("/a/y")),
    ("children of the root", making("/x"), making("/y/z")),
    ("a sibling of what was removed", removing("/a/b"), writing("/a/c")),
    ("a new sibling of what was removed", removing("/a/b"), making("/a/x")),
    ("two siblings removed", removing("/a/b"), removing("/a/c")),
    ("the value of a node and its child", writing("/a"), writing("/a/b")),
    ("the permissions of a node and its child", permitting("/a"), writing("/a/b/x")),
    ("what was missing came and went", missing("/a/x"), in_turn(making("/a/x"), removing("/a/x"))),
]


@pytest.fixture
def store(store: Store) -> Store:
    for path in ("/a/b/d", "/a/c"):
        store.write(DOM0, 0, path, b"old")
    return store


def names(cases: list[tuple[str, Step, Step]]) -> list[str]:
    return [name for name, _, _ in cases]


def everything(store: Store, path: str = "/") -> dict[str, tuple[bytes, list[str]]]:
    found = {path: (store.read(DOM0, 0, path), store.get_perms(DOM0, 0, path))}
    for name in store.directory(DOM0, 0, path):
        found.update(everything(store, f"{path.rstrip('/')}/{name}"))
    return found


@pytest.mark.parametrize(("_name", "inside", "outside"), CONFLICTS, ids=names(CONFLICTS))
def test_a_commit_fails_over(store: Store, _name: str, inside: Step, outside: Step) -> None:
    tx = store.transaction_start(DOM0)
    inside(store, tx)
    writing("/mark")(store, tx)
    outside(store, 0)
    before = everything(store)
    with pytest.raises(StoreError, match="EAGAIN: "):
        store.transaction_end(DOM0, tx, True)
    assert everything(store) == before


@pytest.mark.parametrize(("_name", "inside", "outside"), CONFLICTS, ids=names(CONFLICTS))
def test_of_two_transactions_the_second_to_commit_fails_over(
    store: Store, _name: str, inside: Step, outside: Step
) -> None:
    first, second = store.transaction_start(DOM0), store.transaction_start(DOM0)
    outside(store, first)
    inside(store, second)
    store.transaction_end(DOM0, first, True)
    with pytest.raises(StoreError, match="EAGAIN: "):
        store.transaction_end(DOM0, second, True)


@pytest.mark.parametrize(("_name", "inside", "outside"), HARMONIES, ids=names(HARMONIES))
def test_a_commit_succeeds_over_and_equals_the_same_steps_one_after_the_other(
    store: Store, _name: str, inside: Step, outside: Step
) -> None:
    tx = store.transaction_start(DOM0)
    inside(store, tx)
    writing("/mark")(store, tx)
    outside(store, 0)
    store.transaction_end(DOM0, tx, True)
    merged = everything(store)

    for path in ("/a", "/x", "/y", "/mark"):
        store.rm(DOM0, 0, path)
    for path in ("/a/b/d", "/a/c"):
        store.write(DOM0, 0, path, b"old")
    for step in (outside, inside, writing("/mark")):
        step(store, 0)
    assert everything(store) == merged


def test_a_transaction_sees_the_tree_of_its_start_and_its_own_writes(store: Store) -> None:
    tx = store.transaction_start(DOM0)
    store.write(DOM0, 0, "/a/b/d", b"later")
    assert store.read(DOM0, tx, "/a/b/d") == b"old"
    store.write(DOM0, tx, "/a/x", b"mine")
    assert store.read(DOM0, tx, "/a/x") == b"mine"
    assert store.directory(DOM0, tx, "/a") == ["b", "c", "x"]
    assert store.directory(DOM0, 0, "/a") == ["b", "c"]


def test_an_aborted_transaction_leaves_nothing(store: Store) -> None:
    before = everything(store)
    tx = store.transaction_start(DOM0)
    store.rm(DOM0, tx, "/a")
    store.write(DOM0, tx, "/new", b"")
    store.transaction_end(DOM0, tx, False)
    assert everything(store) == before


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_is_over_after_its_end_even_if_that_failed(store: Store, commit: bool) -> None:
    tx = store.transaction_start(DOM0)
    store.read(DOM0, tx, "/a/c")
    store.write(DOM0, 0, "/a/c", b"")
    if commit:
        with pytest.raises(StoreError, match="EAGAIN: "):
            store.transaction_end(DOM0, tx, True)
    else:
        store.transaction_end(DOM0, tx, False)
    for call in (lambda: store.transaction_end(DOM0, tx, True), lambda: store.read(DOM0, tx, "/a/c")):
        with pytest.raises(StoreError, match="ENOENT: "):
            call()


def test_a_transaction_belongs_to_its_domain(store: Store) -> None:
    tx = store.transaction_start(DOM0)
    with pytest.raises(StoreError, match="ENOENT: "):
        store.read(GUEST, tx, "x")
    with pytest.raises(StoreError, match="ENOENT: "):
        store.transaction_end(GUEST, tx, True)
    assert store.transaction_start(GUEST) == tx, "ids count for each domain"


def test_a_node_made_and_removed_in_one_transaction_never_was(store: Store) -> None:
    store.watch(DOM0, "/", "all")
    store.take_events()
    tx = store.transaction_start(DOM0)
    store.write(DOM0, tx, "/a/x/y", b"")
    store.rm(DOM0, tx, "/a/x")
    store.write(DOM0, 0, "/elsewhere", b"")
    store.take_events()
    store.transaction_end(DOM0, tx, True)
    assert store.take_events() == []
    assert store.directory(DOM0, 0, "/a") == ["b", "c"]


def test_a_transaction_cannot_give_a_node_to_a_domain_that_is_forgotten_before_the_commit(store: Store) -> None:
    tx = store.transaction_start(DOM0)
    store.set_perms(DOM0, tx, "/a", ["n5"])
    store.forget_domain(GUEST)
    with pytest.raises(StoreError, match="EAGAIN: "):
        store.transaction_end(DOM0, tx, True)
    assert store.get_perms(DOM0, 0, "/a") == ["n0"]


@pytest.mark.parametrize("then", [["n0"], None], ids=["taken back", "removed"])
@pytest.mark.parametrize("saved", [False, True])
def test_a_domain_that_has_no_node_of_the_transaction_any_more_may_be_forgotten(
    store: Store, then: list[str] | None, saved: bool
) -> None:
    tx = store.transaction_start(DOM0)
    store.set_perms(DOM0, tx, "/a/c", ["n5"])
    store.set_perms(DOM0, tx, "/a/c", ["r5", "n0"])
    if then is None:
        store.rm(DOM0, tx, "/a/c")
    else:
        store.set_perms(DOM0, tx, "/a/c", then)
    store = pickle.loads(pickle.dumps(store)) if saved else store
    store.forget_domain(GUEST)
    store.transaction_end(DOM0, tx, True)
    assert store.exists("/a/c") == (then is not None)


def test_what_a_transaction_has_made_anew_stands_last_whatever_others_have_done_there(store: Store) -> None:
    tx, quiet = store.transaction_start(DOM0), store_with_guests(Quotas())
    steps = in_turn(
        writing("/a/x"), removing("/a/b"), writing("/a/b"), removing("/a/x"), writing("/a/y"), writing("/a/x")
    )  # fmt: skip
    steps(store, tx)
    store = pickle.loads(pickle.dumps(store))
    store.write(DOM0, 0, "/a/other", b"")
    store.transaction_end(DOM0, tx, True)
    assert store.directory(DOM0, 0, "/a") == ["c", "other", "b", "y", "x"]
    for path in ("/a/b", "/a/c", "/a/other"):
        quiet.write(DOM0, 0, path, b"")
    steps(quiet, 0)
    assert quiet.directory(DOM0, 0, "/a") == store.directory(DOM0, 0, "/a"), "as one by one, outside transactions"


def test_ids_are_never_zero_and_skip_those_in_use() -> None:
    root = leaf(b"", DOM0_ONLY, 1)
    client = Client(DOM0_PRINCIPAL, introduced=True, last_transaction=0xFFFFFFFE)
    assert [client.start(root, 10, 10) for _ in range(3)] == [0xFFFFFFFF, 1, 2]
    client.last_transaction = 0xFFFFFFFE
    assert client.start(root, 10, 10) == 3


def test_what_a_transaction_holds_is_what_it_touched_and_its_versions_of_nodes() -> None:
    before = replace(leaf(b"", DOM0_ONLY, 1), "/a", leaf(b"old", DOM0_ONLY, 2), 2)
    transaction = Transaction(before, before, nodes_max=4)
    transaction.touch("/a")
    touched = 24 + KEPT_IN_BYTES + len("/a")
    assert transaction.held_bytes == touched
    old = before.children["a"]
    new = leaf(b"a longer value", DOM0_ONLY, 3)
    transaction.adopt(Change("/a", new, [Edit("/a", old, new, Fires.NOBODY)]), 3)
    assert transaction.held_bytes == touched + 24 + 8 + 2 + 14
    transaction.adopt(Change("/a", None, [Edit("/a", new, None, Fires.NOBODY)]), 4)
    assert transaction.held_bytes == touched


def test_touching_more_than_the_quota_is_refused_and_what_was_touched_stays_usable() -> None:
    root = leaf(b"", DOM0_ONLY, 1)
    transaction = Transaction(root, root, nodes_max=2)
    transaction.touch("/a")
    transaction.touch("/b")
    with pytest.raises(StoreError) as refusal:
        transaction.touch("/c")
    assert refusal.value.errno == errno.ENOSPC
    transaction.touch("/a", listed=True)
    assert list(transaction.record.by_path) == ["/a", "/b"]
