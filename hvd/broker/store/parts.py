"""What may be much of a store, in parts that take half a millisecond each to be pickled: its trees and its watches.

The parts are those of the moment in which they were begun: no tree and no watch ever changes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import field
from typing import NamedTuple

from hvd.broker.store.packing import Packed, Packing, Row
from hvd.broker.store.remains import Remains
from hvd.broker.store.tree import Node
from hvd.broker.store.watches import Watch
from hvd.transport.records import dataclass

ROWS_PER_PART, NAMES_PER_ROW, WATCHES_PER_PART = 60, 10, 100
"""So many names of a directory count as one row."""


class Part(NamedTuple):
    """Some rows of the trees, or some watches; the last says where the roots are among the rows."""

    rows: Sequence[Row] = ()
    watches: Sequence[Watch] = ()
    roots: Sequence[int] = ()


def in_parts(roots: Sequence[Node], watches: list[Watch], remains: Remains) -> Generator[Part, None, None]:
    """One a step. What nobody else has any more by their end, or when they are given up, is for `remains`."""
    packing = Packing(roots)
    watches.reverse()
    try:
        while watches:
            some = watches[: -WATCHES_PER_PART - 1 : -1]
            del watches[-WATCHES_PER_PART:]
            yield Part(watches=some)
        yield from _rows(packing)
    finally:
        for root in roots:
            remains.add(root)
        remains.add_table(watches)
        remains.add_table(packing.position)


def _rows(packing: Packing) -> Iterator[Part]:
    rows: list[Row] = []
    size = 0
    for row in packing:
        rows.append(row)
        size += 1 + (len(row[0]) // NAMES_PER_ROW if isinstance(row[0], tuple) else 0)
        if size >= ROWS_PER_PART:
            yield Part(rows)
            rows, size = [], 0
    yield Part(rows, roots=packing.roots())


@dataclass(slots=True)
class Collected:
    """Parts that have come in, in order."""

    rows: list[Row] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)

    def add(self, part: Part) -> Packed | None:
        """The trees, when that was the last of them."""
        self.rows += part.rows
        self.watches += part.watches
        return Packed(self.rows, list(part.roots)) if part.roots else None
