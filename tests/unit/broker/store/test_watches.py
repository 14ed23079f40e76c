"""Who hears of what: the table of watches, and what fires them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd.broker.store import Store, StoreError, WatchEvent, paths
from hvd.broker.store.watches import HERE, NAMES_MAX, Watch, Watches
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)


def paths_heard(store: Store, domid: DomId) -> list[str]:
    return [event.path for event in store.take_events() if event.domid == domid]


@pytest.fixture
def store(store: Store) -> Store:
    store.write(DOM0, 0, "/a/b/c", b"")
    store.write(FIVE, 0, "data", b"")
    return store


# ---- the table ---------------------------------------------------------------------------------------------------


def test_watches_are_found_on_a_path_and_on_those_above_it() -> None:
    watches = Watches()
    table = {path: Watch(DOM0, path, "t", relative=False) for path in ("/", "/a", "/a/b", "/a/bc", "/x")}
    for watch in table.values():
        watches.add(watch)
    assert list(watches.on_or_above("/a/b/c")) == [table["/"], table["/a"], table["/a/b"]]
    assert list(watches.on_or_above("/")) == [table["/"]]
    assert list(watches.on("/a/b")) == [table["/a/b"]]
    assert list(watches.on("/a/b/c")) == []


def test_a_table_whose_watches_are_all_gone_holds_nothing() -> None:
    watches = Watches()
    for domid in (FIVE, SEVEN):
        for path in ("/a", "/b"):
            watches.add(Watch(domid, path, "token", relative=False))
    watches.remove(FIVE, 0, "/a", "token")
    assert (watches.count(FIVE), watches.bytes(FIVE)) == (1, 7)
    watches.drop_connection(FIVE, 0)
    watches.drop_connection(SEVEN, 0)
    assert list(watches.on("/a")) == list(watches.on("/b")) == [], "they are nobody's at once"
    watches.unlist(watches.dropped())
    assert (watches.count(FIVE), watches.bytes(FIVE), watches.count(SEVEN), watches.bytes(SEVEN)) == (0, 0, 0, 0)
    assert list(watches.on("/a")) == list(watches.on("/b")) == []
    assert not any((watches.by_path, watches.by_name, watches._of, watches._counts, watches._bytes, watches._all))


PATHS = st.lists(st.sampled_from("ab"), max_size=NAMES_MAX + 2).map(paths.join)


@given(watched=st.lists(PATHS | st.just("@releaseDomain"), max_size=12), gone=st.integers(0, 12), path=PATHS)
def test_the_tree_of_names_misses_nobody_and_names_others_only_behind_the_names_that_it_has(watched, gone, path):
    watches = Watches()
    table = [Watch(DOM0, each, f"{number}", relative=False) for number, each in enumerate(watched)]
    for watch in table:
        watches.add(watch)
    for watch in table[:gone]:
        watches.remove(DOM0, 0, watch.path, watch.token)
    level: Any = watches.by_name
    found = HERE in level
    for name in paths.split(path):
        level = level.get(name, {})
        found = found or HERE in level
    short = len(paths.split(path)) <= NAMES_MAX
    assert found >= bool(watches.on_or_above(path))
    assert found == bool(watches.on_or_above(path)) or not short


# ---- setting watches ---------------------------------------------------------------------------------------------


def test_a_watch_fires_at_once_even_on_what_is_missing_or_may_not_be_read(store: Store) -> None:
    store.watch(FIVE, "/a/b", "secret")
    store.watch(FIVE, "missing", "relative")
    store.watch(FIVE, "@releaseDomain", "special")
    assert store.take_events() == [
        WatchEvent(FIVE, "/a/b", "secret"),
        WatchEvent(FIVE, "missing", "relative"),
        WatchEvent(FIVE, "@releaseDomain", "special"),
    ]


def test_the_same_watch_twice_is_refused_but_another_token_or_domain_is_another_watch(store: Store) -> None:
    store.watch(FIVE, "data", "t")
    for path in ("data", "/local/domain/5/data"):
        with pytest.raises(StoreError, match="EEXIST: "):
            store.watch(FIVE, path, "t")
    store.watch(FIVE, "data", "u")
    store.watch(DOM0, "/local/domain/5/data", "t")
    assert store.statistics().watches == 3


def test_a_watch_that_was_taken_back_is_silent_and_cannot_be_taken_back_again(store: Store) -> None:
    store.watch(FIVE, "data", "t")
    store.unwatch(FIVE, "data", "t")
    store.take_events()
    store.write(FIVE, 0, "data", b"new")
    assert store.take_events() == []
    for path, token in (("data", "t"), ("data", "u"), ("other", "t")):
        with pytest.raises(StoreError, match="ENOENT: "):
            store.unwatch(FIVE, path, token)


@pytest.mark.parametrize("path", ["", "a//b", "/a/", "/a b", "@" + "x" * 2048, "@a\0b", "@\u20ac"])
def test_a_watch_on_an_invalid_path_is_refused(store: Store, path: str) -> None:
    with pytest.raises(StoreError, match="EINVAL: "):
        store.watch(FIVE, path, "t")
    with pytest.raises(StoreError, match="ENOENT: "):
        store.unwatch(FIVE, path, "t")


def test_xsa_324_a_token_leaves_room_for_the_longest_path(store: Store) -> None:
    store.watch(FIVE, "data", "x" * 1022)
    for token in ("x" * 1023, "€" * 341, "a\0b"):
        with pytest.raises(StoreError, match="EINVAL: "):
            store.watch(FIVE, "data", token)
    longest = max(len(path.encode()) + len(token.encode()) + 2 for _, path, token, _ in store.take_events())
    assert longest + 3072 - len("data") == 4096


# ---- what fires --------------------------------------------------------------------------------------------------


def test_a_write_is_heard_on_the_path_and_above_with_the_path_that_changed(store: Store) -> None:
    for path in ("/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/bb", "/x"):
        store.watch(DOM0, path, f"on {path}")
    store.take_events()
    store.write(DOM0, 0, "/a/b/c", b"new")
    tokens = ["on /", "on /a", "on /a/b", "on /a/b/c"]
    assert store.take_events() == [WatchEvent(DOM0, "/a/b/c", token) for token in tokens]


def test_a_relative_watch_hears_relative_paths_and_an_absolute_one_absolute_paths(store: Store) -> None:
    store.watch(FIVE, "data", "relative")
    store.watch(FIVE, "/local/domain/5/data", "absolute")
    store.take_events()
    store.write(DOM0, 0, "/local/domain/5/data/x", b"new")
    assert store.take_events() == [
        WatchEvent(FIVE, "data/x", "relative"),
        WatchEvent(FIVE, "/local/domain/5/data/x", "absolute"),
    ]


def test_creating_is_heard_once_with_the_path_that_was_asked_for(store: Store) -> None:
    store.watch(DOM0, "/", "t")
    store.watch(DOM0, "/new", "on the way")
    store.take_events()
    store.write(DOM0, 0, "/new/way/down", b"")
    store.mkdir(DOM0, 0, "/other/way")
    assert paths_heard(store, DOM0) == ["/new/way/down", "/new/way/down", "/other/way"]


def test_making_what_exists_and_removing_what_does_not_is_not_heard(store: Store) -> None:
    store.watch(DOM0, "/", "t")
    store.take_events()
    store.mkdir(DOM0, 0, "/a/b")
    store.rm(DOM0, 0, "/a/missing")
    assert store.take_events() == []


def test_a_removal_is_heard_above_once_and_below_by_watches_on_what_went(store: Store) -> None:
    store.write(DOM0, 0, "/a/b/c/d", b"")
    for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b/missing"):
        store.watch(DOM0, path, f"on {path}")
    store.take_events()
    store.rm(DOM0, 0, "/a/b")
    assert store.take_events() == [
        WatchEvent(DOM0, "/a/b/c/d", "on /a/b/c/d"),
        WatchEvent(DOM0, "/a/b/c", "on /a/b/c"),
        WatchEvent(DOM0, "/a/b", "on /a"),
        WatchEvent(DOM0, "/a/b", "on /a/b"),
    ]


def test_a_refused_write_is_not_heard(store: Store) -> None:
    store.watch(DOM0, "/", "t")
    store.take_events()
    with pytest.raises(StoreError, match="EACCES: "):
        store.write(FIVE, 0, "/a/b", b"")
    assert store.take_events() == []


def test_a_transaction_is_heard_when_it_commits_each_path_once(store: Store) -> None:
    store.watch(DOM0, "/", "t")
    store.watch(DOM0, "/a/b/c", "removed")
    store.take_events()
    tx = store.transaction_start(DOM0)
    store.write(DOM0, tx, "/x", b"1")
    store.write(DOM0, tx, "/x", b"2")
    store.set_perms(DOM0, tx, "/x", ["r0"])
    store.rm(DOM0, tx, "/a/b")
    store.write(DOM0, tx, "/a/b/e", b"")
    assert store.take_events() == []
    store.transaction_end(DOM0, tx, True)
    assert [(event.path, event.token) for event in store.take_events()] == [
        ("/x", "t"),
        ("/a/b", "t"),
        ("/a/b/c", "removed"),
        ("/a/b/e", "t"),
    ]


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_that_does_not_commit_is_not_heard(store: Store, commit: bool) -> None:
    store.watch(DOM0, "/", "t")
    tx = store.transaction_start(DOM0)
    store.write(DOM0, tx, "/a/b", b"mine")
    store.write(DOM0, 0, "/a/b", b"theirs")
    store.take_events()
    if commit:
        with pytest.raises(StoreError, match="EAGAIN: "):
            store.transaction_end(DOM0, tx, True)
    else:
        store.transaction_end(DOM0, tx, False)
    assert store.take_events() == []


# ---- who hears ---------------------------------------------------------------------------------------------------


def test_xsa_115_nobody_hears_of_nodes_that_they_may_not_read(store: Store) -> None:
    store.watch(SEVEN, "/", "spy")
    store.watch(SEVEN, "/local/domain/5/data", "spy")
    store.watch(SEVEN, "/a/b/c", "spy")
    store.take_events()
    store.write(FIVE, 0, "data", b"secret")
    store.write(FIVE, 0, "data/below", b"secret")
    store.rm(FIVE, 0, "data")
    store.write(DOM0, 0, "/a/b/c", b"secret")
    store.rm(DOM0, 0, "/a")
    tx = store.transaction_start(FIVE)
    store.write(FIVE, tx, "in/transaction", b"secret")
    store.transaction_end(FIVE, tx, True)
    assert store.take_events() == []


def test_whom_a_node_is_opened_to_hears_of_it_from_that_moment_on(store: Store) -> None:
    store.watch(SEVEN, "/local/domain/5/data", "t")
    store.take_events()
    store.set_perms(FIVE, 0, "data", ["n5", "r7"])
    assert paths_heard(store, SEVEN) == ["/local/domain/5/data"]
    store.write(FIVE, 0, "data", b"new")
    assert paths_heard(store, SEVEN) == ["/local/domain/5/data"]


def test_who_loses_a_node_hears_that_and_no_more(store: Store) -> None:
    store.set_perms(FIVE, 0, "data", ["n5", "r7"])
    store.watch(SEVEN, "/local/domain/5/data", "t")
    store.take_events()
    store.set_perms(FIVE, 0, "data", ["n5"])
    assert paths_heard(store, SEVEN) == ["/local/domain/5/data"]
    store.write(FIVE, 0, "data", b"secret")
    assert store.take_events() == []


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_reader_hears_of_the_removal_though_nothing_readable_is_left(store: Store, in_transaction: bool) -> None:
    store.set_perms(FIVE, 0, "data", ["n5", "r7"])
    store.watch(SEVEN, "/local/domain/5/data", "t")
    store.take_events()
    tx = store.transaction_start(DOM0) if in_transaction else 0
    store.rm(DOM0, tx, "/local/domain/5")
    if in_transaction:
        store.transaction_end(DOM0, tx, True)
    assert paths_heard(store, SEVEN) == ["/local/domain/5/data"]


def test_who_may_list_the_parent_hears_children_come_and_go_but_not_what_they_hold(store: Store) -> None:
    store.set_perms(FIVE, 0, "data", ["n5", "r7"])
    store.watch(SEVEN, "/local/domain/5/data", "t")
    store.take_events()
    tx = store.transaction_start(FIVE)
    store.write(FIVE, tx, "data/private", b"1")
    store.set_perms(FIVE, tx, "data/private", ["n5"])
    store.transaction_end(FIVE, tx, True)
    assert paths_heard(store, SEVEN) == ["/local/domain/5/data/private"]
    store.write(FIVE, 0, "data/private", b"2")
    assert store.take_events() == []
    store.rm(FIVE, 0, "data/private")
    assert paths_heard(store, SEVEN) == ["/local/domain/5/data/private"]


def test_who_may_list_a_parent_hears_children_go_with_it_and_come_with_it(store: Store) -> None:
    private = "/local/domain/5/data/list/private"
    store.watch(SEVEN, private, "t")
    store.take_events()
    tx = store.transaction_start(DOM0)
    store.write(DOM0, tx, private, b"")
    store.set_perms(DOM0, tx, private, ["n5"])
    store.set_perms(DOM0, tx, "/local/domain/5/data/list", ["n5", "r7"])
    store.transaction_end(DOM0, tx, True)
    assert paths_heard(store, SEVEN) == [private]
    store.rm(DOM0, 0, "/local/domain/5/data")
    assert paths_heard(store, SEVEN) == [private]


def test_special_paths_are_heard_by_dom0_and_by_whom_it_allows(store: Store) -> None:
    for domid in (DOM0, FIVE, SEVEN):
        store.watch(domid, "@introduceDomain", "in")
        store.watch(domid, "@releaseDomain", "out")
    store.set_perms(DOM0, 0, "@releaseDomain", ["n0", "r5"])
    store.take_events()
    store.introduce(DomId(9))
    store.release(DomId(9))
    assert store.take_events() == [
        WatchEvent(DOM0, "@introduceDomain", "in"),
        WatchEvent(DOM0, "@releaseDomain", "out"),
        WatchEvent(FIVE, "@releaseDomain", "out"),
    ]


def test_a_watch_on_the_root_does_not_hear_special_paths(store: Store) -> None:
    store.watch(DOM0, "/", "t")
    store.take_events()
    store.introduce(DomId(9))
    assert store.take_events() == []


def test_special_permissions_are_dom0s_to_change(store: Store) -> None:
    with pytest.raises(StoreError, match="EACCES: "):
        store.set_perms(FIVE, 0, "@releaseDomain", ["r5"])
    with pytest.raises(StoreError, match="EINVAL: "):
        store.set_perms(DOM0, 0, "@unknown", ["r5"])
    store.set_perms(DOM0, 0, "@releaseDomain", ["n5"])
    store.set_perms(FIVE, 0, "@releaseDomain", ["r5"])
    store.forget_domain(FIVE)
    with pytest.raises(StoreError, match="EACCES: "):
        store.set_perms(SEVEN, 0, "@releaseDomain", ["r7"])
    store.watch(SEVEN, "@releaseDomain", "t")
    store.take_events()
    store.release(DomId(3))
    assert paths_heard(store, SEVEN) == ["@releaseDomain"], "what all others may do is kept"
