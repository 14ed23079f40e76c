"""Trees that nobody needs any more, let go a few nodes at a time: to free 100,000 nodes at once takes 16 ms.

No part of the store's state: a successor has none of them, and nothing anybody is told depends on it.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

from hvd.broker.store.children import Chunk, chunks_of
from hvd.broker.store.packing import Packing
from hvd.broker.store.record import Record, Touched
from hvd.broker.store.tree import Node

STEPS_AT_ONCE, NAMES_PER_STEP = 400, 8
"""A node is a step, and so are so many of a dictionary's names. About a tenth of a millisecond."""
_OURS_ALONE = 2
"""References to what we have just taken from the list: the variable, and the question itself."""


class Remains:
    """What is left to be let go."""

    def __init__(self) -> None:
        self._left: list[Node | Chunk | Touched] = []
        self._tables: list[dict[Any, Any] | list[Any]] = []
        self._records: list[Record] = []

    def add(self, root: Node) -> None:
        """Of this tree whatever no other version has."""
        self._left.append(root)

    def add_table(self, table: dict[Any, Any] | list[Any]) -> None:
        """Of what a snapshot has written. Whoever adds it has no use for it any more."""
        if table:
            self._tables.append(table)

    def add_packing(self, packing: Packing) -> None:
        """Of all its trees, and of what it knows of them. Whoever adds it has no use for it any more."""
        self._left += packing.roots
        packing.roots.clear()
        self.add_table(packing.position)

    def add_record(self, record: Record) -> None:
        """Of what a transaction has touched, when no snapshot asks for it any more."""
        if record.by_path:
            self._records.append(record)

    def __bool__(self) -> bool:
        return bool(self._left or self._tables or self._records)

    def _look_at_records(self) -> None:
        for record in self._records:
            if not record.is_asked_for:
                self.add_table(record.by_path)
                self._left.append(record.root)
        self._records = [record for record in self._records if record.is_asked_for]

    def let_go(self) -> None:
        """Of some. What is below a node is kept until it is gone itself, so that its end is not theirs as well."""
        if self._records:
            self._look_at_records()
        left, steps = self._left, STEPS_AT_ONCE
        while self._tables and steps > 0:
            table = self._tables[-1]
            take = table.pop if isinstance(table, list) else table.popitem
            for _ in range(min(len(table), steps)):
                take()
                steps -= 1
            if not table:
                self._tables.pop()
        while left and steps > 0:
            each = left.pop()
            steps -= 1
            if getrefcount(each) > _OURS_ALONE:
                continue
            if isinstance(each, dict):
                steps -= len(each) // NAMES_PER_STEP
                left.extend(each.values())
            elif isinstance(each, Touched):
                left.extend((each.below or {}).values())
            else:
                left.extend(chunks_of(each.children))
