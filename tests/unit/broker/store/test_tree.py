"""Immutable nodes: every version keeps what it had, and versions share the rest."""

import sys

import pytest

from hvd.broker.store import tree
from hvd.broker.store.packing import pack, unpack
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.tree import Node


def node(value: bytes = b"", generation: int = 1) -> Node:
    return tree.leaf(value, DOM0_ONLY, generation)


def grown(*paths: str) -> Node:
    """A tree with these nodes, each holding its path; parents must come first."""
    root = node()
    for generation, path in enumerate(paths, start=2):
        root = tree.replace(root, path, node(path.encode(), generation), generation)
    return root


def found(root: Node, path: str) -> Node:
    result = tree.lookup(root, path)
    assert result is not None
    return result


def test_a_node_is_found_by_its_path_or_not_at_all() -> None:
    root = grown("/a", "/a/b")
    assert tree.lookup(root, "/") is root
    assert found(root, "/a/b").value == b"/a/b"
    assert tree.lookup(root, "/a/b/c") is None
    assert tree.lookup(root, "/x/b") is None


def test_the_nearest_node_is_the_last_that_exists_on_the_way() -> None:
    root = grown("/a", "/a/b")
    assert tree.nearest(root, ["a", "b", "c", "d"]) == (2, found(root, "/a/b"))
    assert tree.nearest(root, ["x"]) == (0, root)
    assert tree.nearest(root, ["a"]) == (1, found(root, "/a"))


def test_an_older_version_does_not_notice_a_change_and_shares_what_did_not_change() -> None:
    before = grown("/a", "/a/b", "/c")
    after = tree.replace(before, "/a/b", node(b"new", 9), 9)
    assert found(before, "/a/b").value == b"/a/b"
    assert found(after, "/a/b").value == b"new"
    assert found(after, "/c") is found(before, "/c")


def test_removing_takes_all_below_along() -> None:
    before = grown("/a", "/a/b", "/a/b/c")
    after = tree.replace(before, "/a", None, 9)
    assert tree.lookup(after, "/a/b/c") is None
    assert found(before, "/a/b/c").value == b"/a/b/c"


def test_only_a_list_of_children_that_changed_gets_a_new_generation() -> None:
    before = grown("/a", "/a/b")
    rewritten = tree.replace(before, "/a/b", node(b"new", 9), 9)
    assert found(rewritten, "/a").children_generation == found(before, "/a").children_generation
    longer = tree.replace(before, "/a/c", node(b"", 9), 9)
    assert found(longer, "/a").children_generation == 9
    assert longer.children_generation == before.children_generation
    shorter = tree.replace(before, "/a/b", None, 9)
    assert found(shorter, "/a").children_generation == 9
    assert found(shorter, "/a").generation == found(before, "/a").generation


def test_a_record_counts_permissions_value_and_names_and_the_content_counts_its_path_instead() -> None:
    root = grown("/ab", "/ab/cde")
    assert tree.record_bytes(found(root, "/ab")) == 24 + 8 + 3 + 4
    assert tree.content_bytes("/ab", found(root, "/ab")) == 24 + 8 + 3 + 3
    assert tree.record_bytes(tree.replace(root, "/ab", None, 9)) == tree.record_bytes(node())


def test_a_chain_made_at_once_is_like_one_made_step_by_step() -> None:
    leaf = node(b"v", 7)
    chain = tree.above("b", leaf, DOM0_ONLY, 7)
    root = tree.replace(node(), "/a", chain, 7)
    assert tree.lookup(root, "/a/b") is leaf
    assert tree.record_bytes(chain) == 24 + 8 + 2


def test_a_subtree_is_walked_children_first_in_the_order_of_creation() -> None:
    root = grown("/a", "/a/z", "/a/z/y", "/a/b", "/c")
    assert [path for path, _ in tree.subtree("/a", found(root, "/a"))] == ["/a/z/y", "/a/z", "/a/b", "/a"]
    assert [path for path, _ in tree.subtree("/", root)][-2:] == ["/c", "/"]


@pytest.mark.parametrize("depth", [2 * sys.getrecursionlimit()])
def test_xsa_418_no_depth_exhausts_the_stack(depth: int) -> None:
    chain = node(b"deepest")
    for _ in range(depth):
        chain = tree.above("a", chain, DOM0_ONLY, 1)
    path = "/a" * depth
    root = tree.replace(chain, path, node(b"new", 2), 2)
    assert found(root, path).value == b"new"
    (unpacked,) = unpack(pack([root]))
    assert found(unpacked, path).value == b"new"
    assert sum(1 for _ in tree.subtree("/", unpacked)) == depth + 1
