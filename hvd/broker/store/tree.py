"""The tree of nodes: immutable, so that a snapshot is one reference and versions share what they have in common.

Paths may be 1,500 names long, so nothing here recurses.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hvd.broker.store import paths
from hvd.broker.store.children import NO_CHILDREN, Children, pairs_of, with_child, without_child
from hvd.broker.store.permissions import Permissions

HEADER_BYTES = 24
PERMISSION_BYTES = 8
"""What xenstored stores per node and per permission; quotas are counted in its records."""


class Node(NamedTuple):
    """One node. Compare with `is`: equality would walk all that is below."""

    value: bytes
    permissions: Permissions
    children: Children
    """In the order of creation; never changed in place."""
    generation: int
    """Unique to the last change of value or permissions."""
    children_generation: int
    """Unique to the last change of the children's names."""
    names_bytes: int
    """The children's names, each with its NUL."""


def leaf(value: bytes, permissions: Permissions, generation: int) -> Node:
    """A node without children."""
    return Node(value, permissions, NO_CHILDREN, generation, generation, 0)


def above(name: str, node: Node, permissions: Permissions, generation: int) -> Node:
    """An empty node whose only child is `node`."""
    return Node(b"", permissions, {name: node}, generation, generation, len(name) + 1)


def with_content(node: Node, value: bytes, permissions: Permissions, generation: int) -> Node:
    """The node with another value and other permissions, and its children."""
    return Node(value, permissions, node.children, generation, node.children_generation, node.names_bytes)


def content_bytes(path: str, node: Node) -> int:
    """What the node costs its owner; its children's names are charged to their owners."""
    return HEADER_BYTES + PERMISSION_BYTES * len(node.permissions) + len(path) + len(node.value)


def record_bytes(node: Node) -> int:
    """The node's record as xenstored would store it."""
    return HEADER_BYTES + PERMISSION_BYTES * len(node.permissions) + len(node.value) + node.names_bytes


def lookup(root: Node, path: str) -> Node | None:
    """The node at a path."""
    node: Node | None = root
    for name in paths.split(path):
        node = node.children.get(name) if node is not None else None
        if node is None:
            return None
    return node


def nearest(root: Node, names: Sequence[str]) -> tuple[int, Node]:
    """The deepest node that exists on the way, and how many of the names lead to it."""
    node = root
    for depth, name in enumerate(names):
        child = node.children.get(name)
        if child is None:
            return depth, node
        node = child
    return len(names), node


def replace(root: Node, path: str, node: Node | None, generation: int) -> Node:
    """The tree with `node`, or nothing, at a path whose parent exists."""
    names = paths.split(path)
    if not names:
        assert node is not None, "the root cannot be removed"
        return node
    parent, line = root, []
    for name in names[:-1]:
        line.append(parent)
        parent = parent.children[name]
    changed = _with_child(parent, names.pop(), node, generation)
    while line:
        value, permissions, children, own, listing, names_bytes = line.pop()
        changed = Node(value, permissions, with_child(children, names.pop(), changed), own, listing, names_bytes)
    return changed


def _with_child(parent: Node, name: str, node: Node | None, generation: int) -> Node:
    value, permissions, old, own, listing, names_bytes = parent
    children = without_child(old, name) if node is None else with_child(old, name, node)
    if growth := (len(children) - len(old)) * (len(name) + 1):
        listing, names_bytes = generation, names_bytes + growth
    return Node(value, permissions, children, own, listing, names_bytes)


def subtree(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """The node and all below it with their paths, children before parents."""
    line = [(path, node, pairs_of(node.children))]
    while line:
        path, node, rest = line[-1]
        following = next(rest, None)
        if following is None:
            line.pop()
            yield path, node
        else:
            name, below = following
            line.append((paths.child(path, name), below, pairs_of(below.children)))
