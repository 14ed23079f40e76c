"""What may be much of a store, in parts that take half a millisecond each to be pickled: its trees and its watches.

The parts are those of the moment in which they were begun: no tree and no watch ever changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hvd.broker.store.packing import Packed, Packing, Row
from hvd.broker.store.tree import Node
from hvd.broker.store.watches import Watch

ROWS_PER_PART, NAMES_PER_ROW, WATCHES_PER_PART = 60, 10, 100
"""So many names of a directory count as one row."""


class Part(NamedTuple):
    """Some rows of the trees, or some watches; the last says where the roots are among the rows."""

    rows: Sequence[Row] = ()
    watches: Sequence[Watch] = ()
    roots: Sequence[int] = ()


def in_parts(roots: Sequence[Node], watches: Sequence[Watch]) -> Iterator[Part]:
    """One a step."""
    for at in range(0, len(watches), WATCHES_PER_PART):
        yield Part(watches=watches[at : at + WATCHES_PER_PART])
    packing = Packing(roots)
    rows: list[Row] = []
    size = 0
    for row in packing:
        rows.append(row)
        size += 1 + (len(row[0]) // NAMES_PER_ROW if isinstance(row[0], tuple) else 0)
        if size >= ROWS_PER_PART:
            yield Part(rows)
            rows, size = [], 0
    yield Part(rows, roots=packing.positions())


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
