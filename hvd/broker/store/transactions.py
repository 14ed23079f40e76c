"""Transactions: a snapshot, the same tree with the transaction's own writes, and a record of every path they depend on.

A commit succeeds unless one of those paths has changed meanwhile: its value, its permissions, whether it exists, and
where the transaction listed its children or removed it, their names. Writes elsewhere never conflict, not even below
the same parent. So commits are serialisable: what was read is still so when what was written appears.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any

from hvd.broker.store.accounts import Growth, Tally, add, growth_of
from hvd.broker.store.changes import Change, Edit
from hvd.broker.store.errors import StoreError
from hvd.broker.store.permissions import DOM0_ONLY, Principal
from hvd.broker.store.record import Depends, Record
from hvd.broker.store.tree import Node, content_bytes, leaf, lookup, replace
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass, field, fields

NAMED_MAX = 1024
"""Nodes that a transaction may touch one by one, dom0's as well: a commit looks at all of them at once."""
NOTHING = leaf(b"", DOM0_ONLY, 0)
TransactionRow = tuple[int, int, tuple[tuple[DomId, int, int], ...], tuple[tuple[Principal, int], ...], str, int]


@dataclass(slots=True)
class Direct:
    """What an operation outside of any transaction sees: the tree itself, and no record of it."""

    root: Node

    def touch(self, path: str, *, listed: bool = False) -> None:
        """Nothing can come between."""


@dataclass(slots=True)
class Transaction:
    """One open transaction of one domain."""

    snapshot: Node
    root: Node
    nodes_max: int
    connection: int = 0
    """Of its domain's, the one that opened it and alone may use it."""
    record: Record = field(default_factory=Record)
    """What it depends on."""
    growth: Growth = field(default_factory=dict)
    """What its commit would mean for each owner."""
    given_to: dict[Principal, int] = field(default_factory=dict)
    """The owners of the nodes that are its own versions, and how many each has."""
    doomed: str = ""
    """Why it cannot commit any more."""
    own_bytes: int = 0
    """Of the nodes that are its own versions; the rest is shared with the snapshot."""

    @property
    def held_bytes(self) -> int:
        """Of those nodes, and of what it has touched."""
        return self.own_bytes + self.record.bytes

    def touch(self, path: str, *, listed: bool = False) -> None:
        """From now on the commit depends on this path. ENOSPC when it would depend on too many."""
        self._touch(path, Depends.ON_LIST if listed else Depends.ON_CONTENT, by_name=True)

    def _touch(self, path: str, depends: Depends, *, by_name: bool) -> None:
        record, most = self.record, min(self.nodes_max, NAMED_MAX) if by_name else self.nodes_max
        full = len(record) >= self.nodes_max or (by_name and record.named >= most)
        if full and path not in record.by_path:
            raise StoreError(errno.ENOSPC, f"a transaction touches at most {most} nodes, {path} is one more")
        self.record.touch(path, depends, by_name=by_name)

    def adopt(self, change: Change, generation: int) -> None:
        """Make a change, visible to this transaction only; its paths have been touched."""
        self.root = replace(self.root, change.path, change.node, generation)
        self._note(change.edits)

    def _note(self, edits: Iterable[Edit]) -> None:
        add(self.growth, growth_of(edits))
        for path, before, after, fires in edits:
            touched = self.record.by_path[path]
            if touched.changed and before is not None:
                self._count_own(path, before, -1)
            if after is not None:
                self._count_own(path, after, 1)
            touched.changed = True
            touched.made = touched.made or before is None
            touched.fires = max(touched.fires, fires)

    def _count_own(self, path: str, node: Node, sign: int) -> None:
        """One of its own versions more or less."""
        self.own_bytes += sign * content_bytes(path, node)
        owner = node.permissions[0].who
        count = self.given_to.pop(owner, 0) + sign
        if count:
            self.given_to[owner] = count

    def take_away(self, path: str, first: list[Edit], generation: int) -> None:
        """Without a node and all below from now on; `depend_on_removed` hears of the edits behind the first."""
        self.record.touch(path, Depends.ON_ALL)
        self.root = replace(self.root, path, None, generation)
        self._note(first)

    def depend_on(self, edits: list[Edit]) -> None:
        """The commit depends on what these nodes and their lists are. ENOSPC when it would depend on too many."""
        for edit in edits:
            self._touch(edit.path, Depends.ON_LIST, by_name=False)

    def depend_on_removed(self, edits: list[Edit]) -> None:
        """These nodes are gone as well. When that is too many it cannot commit."""
        try:
            self.depend_on(edits)
        except StoreError as error:
            self.doomed = error.text
        else:
            self._note(edits)

    def edits_of(self, record: Record) -> Iterator[Edit]:
        """What a commit means, in the order in which the paths were first touched."""
        for path, fires in record.changed():
            yield Edit(path, lookup(self.snapshot, path), lookup(self.root, path), fires)

    def row(self) -> TransactionRow:
        """All but the trees and the record, as it is now."""
        growth = tuple([(owner, tally.nodes, tally.bytes) for owner, tally in self.growth.items()])
        return self.nodes_max, self.connection, growth, tuple(self.given_to.items()), self.doomed, self.own_bytes

    @classmethod
    def of_row(cls, row: TransactionRow) -> Transaction:
        """The reverse, with an empty record and trees that are none yet."""
        nodes_max, connection, growth, given_to, doomed, own_bytes = row
        grown = {owner: Tally(nodes, size) for owner, nodes, size in growth}
        return cls(NOTHING, NOTHING, nodes_max, connection, Record(), grown, dict(given_to), doomed, own_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """All but the trees, which the store packs together with its own."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("snapshot", "root")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


View = Direct | Transaction
