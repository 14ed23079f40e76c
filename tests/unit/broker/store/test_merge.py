"""Two sides' changes since a common version, in one tree."""

import sys

from hvd.broker.store import tree
from hvd.broker.store.merge import merge
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.tree import Node


def put(root: Node, path: str, value: bytes, generation: int) -> Node:
    old = tree.lookup(root, path)
    new = tree.leaf(value, DOM0_ONLY, generation)
    if old is not None:
        new = tree.with_content(old, value, DOM0_ONLY, generation)
    return tree.replace(root, path, new, generation)


def values(root: Node) -> dict[str, bytes]:
    return {path: node.value for path, node in tree.subtree("/", root)}


BASE = tree.leaf(b"", DOM0_ONLY, 1)
for number, base_path in enumerate(("/a", "/a/b", "/a/c", "/d", "/d/e"), start=2):
    BASE = put(BASE, base_path, b"base", number)


def test_both_sides_changes_are_there_below_one_parent() -> None:
    mine = put(put(BASE, "/a/b", b"mine", 10), "/a/new", b"mine", 11)
    now = put(put(BASE, "/a/c", b"now", 12), "/a/other", b"now", 13)
    merged = merge(BASE, mine, now, 20)
    assert values(merged) == {**values(BASE), "/a/b": b"mine", "/a/new": b"mine", "/a/c": b"now", "/a/other": b"now"}
    parent = tree.lookup(merged, "/a")
    assert parent is not None
    assert list(parent.children) == ["b", "c", "other", "new"]
    assert parent.names_bytes == sum(len(name) + 1 for name in parent.children)


def test_a_value_from_one_side_and_children_from_the_other_meet_in_one_node() -> None:
    mine, now = put(BASE, "/a", b"mine", 10), put(BASE, "/a/new", b"now", 11)
    merged = tree.lookup(merge(BASE, mine, now, 20), "/a")
    assert merged is not None
    assert (merged.value, merged.generation, merged.children_generation) == (b"mine", 10, 11)
    merged = tree.lookup(merge(BASE, now, mine, 20), "/a")
    assert merged is not None
    assert (merged.value, merged.generation, merged.children_generation) == (b"mine", 10, 20)


def test_what_mine_removed_is_gone_and_what_now_removed_stays_gone() -> None:
    mine, now = tree.replace(BASE, "/a/b", None, 10), tree.replace(BASE, "/a/c", None, 11)
    assert values(merge(BASE, mine, now, 20)) == {"/": b"", "/a": b"base", "/d": b"base", "/d/e": b"base"}


def test_what_mine_removed_and_made_again_replaces_the_old() -> None:
    mine = put(tree.replace(BASE, "/a", None, 10), "/a", b"again", 11)
    now = put(BASE, "/d/e", b"now", 12)
    assert values(merge(BASE, mine, now, 20)) == {"/": b"", "/a": b"again", "/d": b"base", "/d/e": b"now"}


def test_parts_that_one_side_left_alone_are_not_visited() -> None:
    mine, now = put(BASE, "/a/b", b"mine", 10), put(BASE, "/d/e", b"now", 11)
    merged = merge(BASE, mine, now, 20)
    assert tree.lookup(merged, "/a") is tree.lookup(mine, "/a")
    assert tree.lookup(merged, "/d") is tree.lookup(now, "/d")


def test_no_depth_exhausts_the_stack() -> None:
    depth = 2 * sys.getrecursionlimit()
    base = tree.leaf(b"", DOM0_ONLY, 1)
    for _ in range(depth):
        base = tree.above("a", base, DOM0_ONLY, 1)
    bottom = "/a" * depth
    merged = merge(base, put(base, f"{bottom}/mine", b"", 2), put(base, f"{bottom}/now", b"", 3), 4)
    found = tree.lookup(merged, bottom)
    assert found is not None
    assert list(found.children) == ["now", "mine"]
