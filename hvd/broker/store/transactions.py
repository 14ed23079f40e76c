"""Transactions: a snapshot, the same tree with the transaction's own writes, and a record of every path they depend on.

A commit succeeds unless one of those paths has changed meanwhile: its value, its permissions, whether it exists, and
where the transaction listed its children or removed it, their names. Writes elsewhere never conflict, not even below
the same parent. So commits are serialisable: what was read is still so when what was written appears.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import field, fields
from itertools import islice
from typing import Any

from hvd.broker.store import paths
from hvd.broker.store.accounts import Growth, add, growth_of
from hvd.broker.store.changes import Change, Edit, Fires
from hvd.broker.store.errors import StoreError
from hvd.broker.store.merge import differences
from hvd.broker.store.permissions import Principal
from hvd.broker.store.tree import HEADER_BYTES, Node, content_bytes, lookup, lookup_in_both, replace
from hvd.transport.records import dataclass


@dataclass(slots=True)
class Direct:
    """What an operation outside of any transaction sees: the tree itself, and no record of it."""

    root: Node

    def touch(self, path: str, *, listed: bool = False) -> None:
        """Nothing can come between."""


@dataclass(slots=True)
class Touched:
    """What a transaction did with one path; it depends on the node's content in any case."""

    listed: bool = False
    """It also depends on the names of the node's children."""
    changed: bool = False
    fires: Fires = Fires.NOBODY

    def conflicts(self, before: Node | None, now: Node | None) -> bool:
        """Whether another node than before, or another list, is another one for this transaction."""
        if before is now:
            return False
        if before is None or now is None or before.generation != now.generation:
            return True
        return self.listed and before.children_generation != now.children_generation


@dataclass(slots=True)
class Transaction:
    """One open transaction of one domain."""

    snapshot: Node
    root: Node
    nodes_max: int
    connection: int = 0
    """Of its domain's, the one that opened it and alone may use it."""
    touched: dict[str, Touched] = field(default_factory=dict)
    growth: Growth = field(default_factory=dict)
    """What its commit would mean for each owner."""
    given_to: set[Principal] = field(default_factory=set)
    """The owners of what it has made or changed."""
    grown: dict[str, None] = field(default_factory=dict)
    """The paths of the nodes that it has given children."""
    doomed: str = ""
    """Why it cannot commit any more."""
    held_bytes: int = 0
    """Of the paths that it depends on and the nodes that are its own versions; the rest is shared with the snapshot."""

    def touch(self, path: str, *, listed: bool = False) -> None:
        """From now on the commit depends on this path. ENOSPC when it would depend on too many."""
        touched = self.touched.get(path)
        if touched is None:
            if len(self.touched) >= self.nodes_max:
                raise StoreError(
                    errno.ENOSPC, f"a transaction touches at most {self.nodes_max} nodes, {path} is one more"
                )
            touched = self.touched[path] = Touched()
            self.held_bytes += HEADER_BYTES + len(path)
        touched.listed = touched.listed or listed

    def adopt(self, change: Change, generation: int) -> None:
        """Make a change, visible to this transaction only; its paths have been touched."""
        self.root = replace(self.root, change.path, change.node, generation)
        self._note(change.edits)

    def _note(self, edits: Iterable[Edit]) -> None:
        add(self.growth, growth_of(edits))
        for path, before, after, fires in edits:
            touched = self.touched[path]
            if touched.changed and before is not None:
                self.held_bytes -= content_bytes(path, before)
            if after is not None:
                self.held_bytes += content_bytes(path, after)
                self.given_to.add(after.permissions[0].who)
                if before is None:
                    self.grown[paths.parent(path)] = None
            touched.changed = True
            touched.fires = max(touched.fires, fires)

    def take_away(self, path: str, first: list[Edit], generation: int) -> None:
        """Without a node and all below from now on; `depend_on_removed` hears of the edits behind the first."""
        self.root = replace(self.root, path, None, generation)
        self._note(first)

    def depend_on(self, edits: list[Edit]) -> None:
        """The commit depends on what these nodes and their lists are. ENOSPC when it would depend on too many."""
        for edit in edits:
            self.touch(edit.path, listed=True)

    def depend_on_removed(self, edits: list[Edit]) -> None:
        """These nodes are gone as well. When that is too many it cannot commit."""
        try:
            self.depend_on(edits)
        except StoreError as error:
            self.doomed = error.text
        else:
            self._note(edits)

    def conflict_with(self, current: Node) -> str | None:
        """A path that this transaction depends on and that is not what it was.

        It costs the fewer of the two: what the transaction depends on, and what others have changed.
        """
        changed = differences(self.snapshot, current)
        for path, before, now in islice(changed, len(self.touched)):
            if path in self.touched and self.touched[path].conflicts(before, now):
                return path
        if next(changed, None) is None:
            return None
        for path, touched in self.touched.items():
            if touched.conflicts(*lookup_in_both(self.snapshot, current, path)):
                return path
        return None

    def grown_beside(self, current: Node) -> list[str]:
        """The nodes that it has given children, and that are not what they were; after `conflict_with`, as cheap."""
        changed = [path for path, _, _ in islice(differences(self.snapshot, current), len(self.grown) + 1)]
        if len(changed) > len(self.grown):
            return list(self.grown)
        return [path for path in changed if path in self.grown]

    def edits(self) -> Iterator[Edit]:
        """What a commit means, in the order in which the paths were first touched; each is forgotten as it is told."""
        touched_at, self.touched = self.touched, {}
        for path in list(touched_at):
            touched = touched_at.pop(path)
            if touched.changed:
                yield Edit(path, lookup(self.snapshot, path), lookup(self.root, path), touched.fires)

    def __getstate__(self) -> dict[str, Any]:
        """All but the trees, which the store packs together with its own."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("snapshot", "root")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


View = Direct | Transaction
