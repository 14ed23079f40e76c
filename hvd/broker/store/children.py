"""A node's children by name, in the order of their creation; immutable, like the nodes.

Few are a dictionary that is copied when one comes or goes. Many are a row of such dictionaries, of which only one is:
in a directory of 100,000 a new name costs some microseconds, and so does finding the part of a list that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd.broker.store.tree import Node

CHUNK_MAX = 256
"""Children of one dictionary. Two neighbours that have fewer than half of it together become one. Native code knows."""

Chunk = dict[str, "Node"]


class WideChildren(Mapping[str, "Node"]):
    """More than CHUNK_MAX children, or what is left of so many."""

    __slots__ = ("_chunks", "_count", "_sizes")

    def __init__(self, chunks: tuple[Chunk, ...], sizes: tuple[int, ...], count: int) -> None:
        """`sizes` are the bytes of each chunk's names, with their NULs."""
        self._chunks = chunks
        self._sizes = sizes
        self._count = count

    def __getitem__(self, name: str) -> Node:
        for chunk in self._chunks:
            if name in chunk:
                return chunk[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            yield from chunk

    def __len__(self) -> int:
        return self._count

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The dictionaries, in order."""
        return self._chunks

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of each dictionary's names, with their NULs."""
        return self._sizes

    def set(self, name: str, node: Node) -> WideChildren:
        """With another node of this name, or a new name at the end."""
        for at, chunk in enumerate(self._chunks):
            if name in chunk:
                return self._with(at, {**chunk, name: node}, self._sizes[at], self._count)
        last = len(self._chunks) - 1
        if len(self._chunks[last]) < CHUNK_MAX:
            size = self._sizes[last] + len(name) + 1
            return self._with(last, {**self._chunks[last], name: node}, size, self._count + 1)
        return WideChildren((*self._chunks, {name: node}), (*self._sizes, len(name) + 1), self._count + 1)

    def without(self, name: str) -> WideChildren:
        """KeyError if there is none of this name."""
        for at, chunk in enumerate(self._chunks):
            if name in chunk:
                rest = {other: node for other, node in chunk.items() if other != name}
                return self._with(at, rest, self._sizes[at] - len(name) - 1, self._count - 1)._joined(at)
        raise KeyError(name)

    def _with(self, at: int, chunk: Chunk, size: int, count: int) -> WideChildren:
        chunks = (*self._chunks[:at], chunk, *self._chunks[at + 1 :])
        return WideChildren(chunks, (*self._sizes[:at], size, *self._sizes[at + 1 :]), count)

    def _joined(self, at: int) -> WideChildren:
        """With one chunk in the place of this one and a neighbour, if they are small or one is empty."""
        for first in (at, at - 1):
            pair = self._chunks[first : first + 2] if first >= 0 else ()
            if len(pair) == 2 and (not all(pair) or len(pair[0]) + len(pair[1]) < CHUNK_MAX // 2):
                chunks = (*self._chunks[:first], {**pair[0], **pair[1]}, *self._chunks[first + 2 :])
                size = self._sizes[first] + self._sizes[first + 1]
                return WideChildren(chunks, (*self._sizes[:first], size, *self._sizes[first + 2 :]), self._count)
        return self

    def names_at(self, offset: int, most: int) -> bytes:
        """At most so many bytes of the list of names, each with its NUL, from a byte offset."""
        found = b""
        for chunk, size in zip(self._chunks, self._sizes, strict=True):
            if offset >= size:
                offset -= size
                continue
            found += _names(chunk)[offset : offset + most - len(found)]
            offset = 0
            if len(found) == most:
                break
        return found


Children = dict[str, "Node"] | WideChildren
"""Ask `isinstance(…, dict)`: to ask for the other, an abstract collection, takes ten times as long."""
NO_CHILDREN: Children = {}


def chunks_of(children: Children) -> Sequence[Chunk]:
    """The dictionaries they are in, none for no children."""
    if not isinstance(children, dict):
        return children.chunks
    return (children,) if children else ()


def with_child(children: Children, name: str, node: Node) -> Children:
    """With another node of this name, or a new name at the end."""
    if not isinstance(children, dict):
        return children.set(name, node)
    if len(children) < CHUNK_MAX or name in children:
        more = children.copy()
        more[name] = node
        return more
    return WideChildren((children,), (names_size(children),), len(children)).set(name, node)


def without_child(children: Children, name: str) -> Children:
    """KeyError if there is none of this name."""
    if not isinstance(children, dict):
        return children.without(name)
    rest = dict(children)
    del rest[name]
    return rest


def pairs_of(children: Children) -> Iterator[tuple[str, Node]]:
    """Names and nodes in order, in one pass, where `items` of many looks each up."""
    return (pair for chunk in chunks_of(children) for pair in chunk.items())


def children_from(chunks: Sequence[Chunk], sizes: Sequence[int]) -> Children:
    """The reverse of `chunks_of`; `sizes` are the bytes of each chunk's names."""
    if len(chunks) > 1:
        return WideChildren(tuple(chunks), tuple(sizes), sum(map(len, chunks)))
    return chunks[0] if chunks else NO_CHILDREN


def names_at(children: Children, offset: int, most: int) -> bytes:
    """At most so many bytes of the list of names, each with its NUL, from a byte offset."""
    if not isinstance(children, dict):
        return children.names_at(offset, most)
    return _names(children)[offset : offset + most]


def names_size(names: Collection[str]) -> int:
    """Of these names in bytes, each with its NUL."""
    return sum(map(len, names)) + len(names)


def _names(children: Mapping[str, Node]) -> bytes:
    return "".join([name + "\0" for name in children]).encode()
