"""Trees as a table: they come back as they were, with what they shared, and no row is larger than a chunk."""

from hvd.broker.store import tree
from hvd.broker.store.children import CHUNK_MAX
from hvd.broker.store.packing import pack, unpack
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.tree import Node
from tests.unit.broker.store.test_tree import found, grown, node


def wide(count: int) -> Node:
    """A directory of so many children."""
    root = grown("/a")
    for number in range(count):
        root = tree.replace(root, f"/a/{number}", node(b"%d" % number, number), number)
    return root


def test_packed_trees_come_back_with_what_they_shared() -> None:
    before = grown("/a", "/a/b", "/c", "/c/d")
    after = tree.replace(before, "/a/b", node(b"new", 9), 9)
    packed = pack([before, after, before])
    assert len(packed.rows) == 5 + 3 + (3 + 2), "nodes, and the dictionaries of those that have children"
    first, second, third = unpack(packed)
    assert first is third
    assert found(first, "/c") is found(second, "/c")
    assert list(tree.subtree("/", first)) == list(tree.subtree("/", before))
    assert list(tree.subtree("/", second)) == list(tree.subtree("/", after))


def test_no_row_holds_more_than_a_chunk_however_wide_the_directory() -> None:
    packed = pack([wide(20 * CHUNK_MAX)])
    assert max(len(row[-1]) for row in packed.rows) == CHUNK_MAX
    (unpacked,) = unpack(packed)
    assert list(tree.subtree("/", unpacked)) == list(tree.subtree("/", wide(20 * CHUNK_MAX)))
    assert found(unpacked, "/a").names_bytes == found(wide(20 * CHUNK_MAX), "/a").names_bytes


def test_of_a_wide_directory_a_version_with_one_change_is_one_chunk_more() -> None:
    before = wide(10 * CHUNK_MAX)
    after = tree.replace(before, "/a/7", tree.leaf(b"new", DOM0_ONLY, 9), 9)
    alone, both = len(pack([before]).rows), len(pack([before, after]).rows)
    assert both - alone == len(("root", "its chunk", "/a", "its first chunk", "/a/7"))
