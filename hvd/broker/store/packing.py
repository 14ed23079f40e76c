"""Trees as one flat table for a pickle, which knows neither depth nor copies: row by row, each of a bounded size.

A row is a node, or one dictionary of children (a *chunk*, children.py): a directory of any size is many rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hvd.broker.store.children import Chunk, children_from, chunks_of, names_size
from hvd.broker.store.permissions import Permissions
from hvd.broker.store.tree import Node

ChunkRow = tuple[tuple[str, ...], tuple[int, ...]]
"""Names, and the positions of the nodes' rows, which come before."""
NodeRow = tuple[bytes, Permissions, int, int, tuple[int, ...]]
"""All of a node but its children; at last the positions of the rows of their chunks."""
Row = ChunkRow | NodeRow


class Packed(NamedTuple):
    """Trees without references from node to node."""

    rows: list[Row]
    roots: list[int]


def pack(roots: Sequence[Node]) -> Packed:
    """The trees as one table; what they share is in it once."""
    packing = Packing()
    return Packed(list(packing.add(roots)), packing.positions(roots))


class Packing:
    """`pack` row by row, for whoever has other things to do meanwhile: no tree ever changes.

    Of trees that come later only those rows are made that none before them had. It keeps all of them, since it knows
    what it has made a row of by its `id`.
    """

    def __init__(self) -> None:
        self.roots: list[Node] = []
        self.position: dict[int, int] = {}
        """Of each row that has been made, by the `id` of what it is of."""

    def add(self, roots: Sequence[Node]) -> Iterator[Row]:
        """Their rows, each in its turn; nothing else is to be added before the last."""
        self.roots += [root for root in roots if id(root) not in self.position]
        return self._rows(roots)

    def _rows(self, roots: Sequence[Node]) -> Iterator[Row]:
        position = self.position
        for root in roots:
            line: list[Node | Chunk] = [root]
            while line:
                each = line[-1]
                below = each.values() if isinstance(each, dict) else chunks_of(each.children)
                missing = [] if id(each) in position else [one for one in below if id(one) not in position]
                if missing:
                    line.extend(missing)
                    continue
                line.pop()
                if id(each) not in position:
                    position[id(each)] = len(position)
                    yield _row(each, position)

    def positions(self, roots: Sequence[Node]) -> list[int]:
        """Where they are, when all their rows have been made."""
        return [self.position[id(root)] for root in roots]


def _row(each: Node | Chunk, position: dict[int, int]) -> Row:
    if isinstance(each, dict):
        return tuple(each), tuple([position[id(node)] for node in each.values()])
    chunks = tuple([position[id(chunk)] for chunk in chunks_of(each.children)])
    return each.value, each.permissions, each.generation, each.children_generation, chunks


def unpack(packed: Packed) -> list[Node]:
    """The trees again, sharing what they shared."""
    nodes: dict[int, Node] = {}
    chunks: dict[int, Chunk] = {}
    sizes: dict[int, int] = {}
    for at, row in enumerate(packed.rows):
        if len(row) == 2:
            names, below = row
            chunks[at] = {name: nodes[index] for name, index in zip(names, below, strict=True)}
            sizes[at] = names_size(names)
        else:
            value, permissions, generation, children_generation, parts = row
            own = [sizes[part] for part in parts]
            children = children_from([chunks[part] for part in parts], own)
            nodes[at] = Node(value, permissions, children, generation, children_generation, sum(own))
    return [nodes[at] for at in packed.roots]
