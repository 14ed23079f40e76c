"""Two sides' changes since a common version, in one tree, or what of it the others' changes forbid."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hvd.broker.store import PRIVILEGED, Quotas, StoreError, tree
from hvd.broker.store.children import CHUNK_MAX, chunks_of, names_size
from hvd.broker.store.merge import Versions, merge
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.record import Depends, Record
from hvd.broker.store.tree import Node
from hvd.transport._native import merged
from hvd.transport.errors import LocalError

CONTENT, LIST = Depends.ON_CONTENT, Depends.ON_LIST


def put(root: Node, path: str, value: bytes, generation: int) -> Node:
    old = tree.lookup(root, path)
    new = tree.leaf(value, DOM0_ONLY, generation)
    if old is not None:
        new = tree.with_content(old, value, DOM0_ONLY, generation)
    return tree.replace(root, path, new, generation)


def values(root: Node) -> dict[str, bytes]:
    return {path: node.value for path, node in tree.subtree("/", root)}


def found(root: Node, path: str) -> Node:
    node = tree.lookup(root, path)
    assert node is not None
    return node


def depending(*touched: str, on: Depends = CONTENT) -> Record:
    record = Record()
    for path in touched:
        record.touch(path, on)
    return record


def both(record: Record, mine: Node, now: Node, base: Node | None = None, limits: Quotas = PRIVILEGED) -> Node:
    return merge(record, Versions(BASE if base is None else base, mine, now), 20, limits).root


BASE = tree.leaf(b"", DOM0_ONLY, 1)
for number, base_path in enumerate(("/a", "/a/b", "/a/c", "/d", "/d/e"), start=2):
    BASE = put(BASE, base_path, b"base", number)


def test_both_sides_changes_are_there_below_one_parent() -> None:
    mine = put(put(BASE, "/a/b", b"mine", 10), "/a/new", b"mine", 11)
    now = put(put(BASE, "/a/c", b"now", 12), "/a/other", b"now", 13)
    root = both(depending("/a/b", "/a/new", "/a"), mine, now)
    assert values(root) == {**values(BASE), "/a/b": b"mine", "/a/new": b"mine", "/a/c": b"now", "/a/other": b"now"}
    parent = found(root, "/a")
    assert list(parent.children) == ["b", "c", "other", "new"], "what the commit brings stands last"
    assert parent.names_bytes == names_size(list(parent.children))
    assert (parent.generation, parent.children_generation) == (2, 20)


@pytest.mark.parametrize("again", [["b"], ["x", "b"], ["b", "x"], ["x", "b", "y", "x"]])
def test_what_was_removed_and_made_again_stands_last_as_it_does_where_nobody_else_has_changed_anything(
    again: list[str],
) -> None:
    mine, record = BASE, depending("/a")
    for generation, name in enumerate(again, start=10):
        path = f"/a/{name}"
        if tree.lookup(mine, path) is not None:
            mine = tree.replace(mine, path, None, generation)
        mine = put(mine, path, b"mine", generation)
        record.touch(path, LIST)
        record.by_path[path].made = True
    alone, beside = both(record, mine, BASE), both(record, mine, put(BASE, "/a/other", b"now", 15))
    brought = list(found(mine, "/a").children)[1:]
    assert list(found(alone, "/a").children) == ["c", *brought]
    assert list(found(beside, "/a").children) == ["c", "other", *brought]


def test_a_value_from_one_side_and_children_from_the_other_meet_in_one_node() -> None:
    mine, now = put(BASE, "/a", b"mine", 10), put(BASE, "/a/new", b"now", 11)
    node = found(both(depending("/a"), mine, now), "/a")
    assert (node.value, node.generation, node.children_generation) == (b"mine", 10, 11)
    node = found(both(depending("/a/new"), now, mine), "/a")
    assert (node.value, node.generation, node.children_generation) == (b"mine", 10, 20)


def test_what_mine_removed_is_gone_and_what_now_removed_stays_gone() -> None:
    mine, now = tree.replace(BASE, "/a/b", None, 10), tree.replace(BASE, "/a/c", None, 11)
    root = both(depending("/a/b", on=LIST), mine, now)
    assert values(root) == {"/": b"", "/a": b"base", "/d": b"base", "/d/e": b"base"}
    assert found(root, "/a").names_bytes == 0


def test_what_mine_removed_and_made_again_replaces_the_old() -> None:
    mine = put(tree.replace(BASE, "/a", None, 10), "/a", b"again", 11)
    now = put(BASE, "/d/e", b"now", 12)
    root = both(depending("/a", "/a/b", "/a/c", on=LIST), mine, now)
    assert values(root) == {"/": b"", "/a": b"again", "/d": b"base", "/d/e": b"now"}


def test_parts_that_one_side_left_alone_are_not_visited() -> None:
    mine, now = put(BASE, "/a/b", b"mine", 10), put(BASE, "/d/e", b"now", 11)
    root = both(depending("/a/b", "/d"), mine, now)
    assert found(root, "/a") is found(mine, "/a")
    assert found(root, "/d") is found(now, "/d")


def test_what_was_only_read_leaves_the_tree_as_it_is() -> None:
    now = put(put(BASE, "/a/b", b"now", 10), "/d/e", b"now", 11)
    assert both(depending("/a/c", "/d"), BASE, now) is now


def test_a_node_that_both_sides_make_too_large_is_named_and_one_that_was_too_large_before_is_not() -> None:
    bound = tree.record_bytes(found(BASE, "/a")) + len("mine\0") + len("now\0") - 1
    mine, now = put(BASE, "/a/mine", b"", 10), put(BASE, "/a/now", b"", 11)
    record = depending("/a/mine", "/a")
    assert merge(record, Versions(BASE, mine, now), 20, Quotas(node_bytes_max=bound)).too_large == "/a"
    assert merge(record, Versions(BASE, mine, now), 20, Quotas(node_bytes_max=bound + 1)).too_large == ""
    less = tree.replace(BASE, "/a/b", None, 12)
    grown = put(BASE, "/a/" + "n" * bound, b"", 13)
    record = depending("/a/b", on=LIST)
    assert merge(record, Versions(BASE, less, grown), 20, Quotas(node_bytes_max=bound)).too_large == ""


def test_no_depth_exhausts_the_stack() -> None:
    depth = 2 * sys.getrecursionlimit()
    base = tree.leaf(b"", DOM0_ONLY, 1)
    for _ in range(depth):
        base = tree.above("a", base, DOM0_ONLY, 1)
    bottom = "/a" * depth
    mine, now = put(base, f"{bottom}/mine", b"", 2), put(base, f"{bottom}/now", b"", 3)
    assert list(found(both(depending(f"{bottom}/mine"), mine, now, base), bottom).children) == ["now", "mine"]
    with pytest.raises(StoreError) as refused:
        both(depending(f"{bottom}/now"), base, now, base)
    assert refused.value.errno == errno.EAGAIN and f"{bottom}/now has changed" in refused.value.text


@pytest.mark.parametrize("garbage", [(1, 2), None, (0, 0, 0, 0, 0, 0)])
def test_what_is_no_tree_or_no_record_is_refused(garbage: Any) -> None:
    mine, now = put(BASE, "/a/b", b"mine", 10), put(BASE, "/a/c", b"now", 11)
    for place in range(3):
        trees = [BASE, mine, now]
        trees[place] = garbage
        with pytest.raises((LocalError, TypeError, AttributeError)):
            merged(depending("/a/b").root, trees[0], trees[1], trees[2], 20, lambda *_: None, 99, 8)
    with pytest.raises((LocalError, TypeError, AttributeError)):
        merged(garbage, BASE, mine, now, 20, lambda *_: None, 99, 8)


# ---- directories of many, against dictionaries -----------------------------------------------------------------------

NAMES = [f"n{number}" for number in range(2 * CHUNK_MAX + CHUNK_MAX // 2)]
Step = tuple[str, int, int]
"""What is done to whom: from one of the names on, with so many."""
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "make", "again"]), st.integers(0, len(NAMES)), st.sampled_from([1, 3, 200])
    ),
    max_size=4,
)


class Side:
    """One side's changes to a directory, and the record of what it touched."""

    def __init__(self, root: Node, generation: int) -> None:
        self.root, self.generation = root, generation
        self.record = Record()

    def carry_out(self, steps: list[Step]) -> Side:
        for verb, first, count in steps:
            for number in range(first, first + count):
                self.generation += 1
                self._step(verb, f"/a/{verb[:1]}{number}" if verb == "make" else f"/a/n{number}")
        return self

    def _step(self, verb: str, path: str) -> None:
        exists = tree.lookup(self.root, path) is not None
        if verb in ("write", "remove") and not exists:
            return
        self.record.touch(path, LIST if verb in ("remove", "again") else CONTENT)
        if exists and verb in ("remove", "again"):
            self.root = tree.replace(self.root, path, None, self.generation)
        if verb != "remove":
            self.record.by_path[path].made |= verb == "again" or not exists
            self.root = put(self.root, path, b"%d" % self.generation, self.generation)


def directory(size: int) -> Node:
    root = put(tree.leaf(b"", DOM0_ONLY, 1), "/a", b"", 2)
    for name in NAMES[:size]:
        root = put(root, f"/a/{name}", b"base", 3)
    return root


DIRECTORIES = {size: directory(size) for size in (0, 2, CHUNK_MAX, len(NAMES))}


@given(size=st.sampled_from(sorted(DIRECTORIES)), ours=steps, theirs=steps)
@example(size=len(NAMES), ours=[("remove", 2 * CHUNK_MAX, CHUNK_MAX // 2)], theirs=[])
def test_a_directory_of_any_size_is_what_dictionaries_would_be(
    size: int, ours: list[Step], theirs: list[Step]
) -> None:
    base = DIRECTORIES[size]
    mine, now = Side(base, 1000).carry_out(ours), Side(base, 5000).carry_out(theirs)
    first, second, third = ({name: node.value for name, node in found(root, "/a").children.items()}
                            for root in (base, mine.root, now.root))  # fmt: skip
    touched = [path.rpartition("/")[2] for path in mine.record.by_path]
    changed = {name for name in {*first, *third} if first.get(name) != third.get(name)}
    try:
        root = both(mine.record, mine.root, now.root, base)
    except StoreError as error:
        assert error.errno == errno.EAGAIN and changed & set(touched)
        return
    assert not changed & set(touched)
    expected = dict(third)
    made = [name for name in touched if mine.record.by_path[f"/a/{name}"].made]
    for name in touched:
        if name not in second or name in made:
            expected.pop(name, None)
        else:
            expected[name] = second[name]
    expected |= {name: value for name, value in second.items() if name in made}
    node = found(root, "/a")
    assert [(name, child.value) for name, child in node.children.items()] == list(expected.items())
    assert node.names_bytes == names_size(expected)
    chunks = chunks_of(node.children)
    assert all(0 < len(chunk) <= CHUNK_MAX for chunk in chunks)
    if not isinstance(node.children, dict):
        assert node.children.sizes == tuple(map(names_size, chunks))
