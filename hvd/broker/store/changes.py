"""What an operation or a commit does to the tree, node by node: from this follow accounts, quotas and watch events."""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from hvd.broker.store.tree import Node, subtree


class Fires(IntEnum):
    """Which watches hear of an edit."""

    NOBODY = 0
    """A parent that came into being on the way to the node that was asked for."""
    ON_IT = 1
    """A node that went with one above it: only watches on exactly this path, since those above hear of that one."""
    ON_IT_AND_ABOVE = 2
    """The node that the operation named."""


class Edit(NamedTuple):
    """One node before and after; None where there is none."""

    path: str
    before: Node | None
    after: Node | None
    fires: Fires


class Change(NamedTuple):
    """One operation: put `node`, or nothing, at `path`. The edits are what this means for the nodes at and below it."""

    path: str
    node: Node | None
    edits: Iterable[Edit]


class Removal:
    """The edits of a removal, children before parents: watches on those below hear of it first."""

    def __init__(self, path: str, node: Node) -> None:
        self.path = path
        self.node = node

    def __iter__(self) -> Iterator[Edit]:
        for path, gone in subtree(self.path, self.node):
            yield Edit(path, gone, None, Fires.ON_IT_AND_ABOVE if gone is self.node else Fires.ON_IT)
