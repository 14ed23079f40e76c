"""Three versions of a tree into one: what a transaction changed since its snapshot, put into the tree as it is now.

Versions share what they have in common, so only nodes that differ are visited: the work grows with what both sides
changed, not with the tree. The caller has checked by Transaction.conflict_with that they did not change the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvd.broker.store.children import Children, with_child, without_child
from hvd.broker.store.tree import Node


@dataclass(slots=True)
class _Visit:
    """One node that both sides changed, at or below."""

    name: str
    base: Node
    mine: Node
    now: Node
    children: Children
    """The merged ones, complete when `rest` is empty."""
    rest: Iterator[str]
    """Names of the children that mine changed, still to be merged."""


def merge(base: Node, mine: Node, now: Node, generation: int) -> Node:
    """`now` with everything that became of `base` in `mine`; lists of children that mine changed get `generation`."""
    line = [_visit("", base, mine, now)]
    while True:
        visit = line[-1]
        name = next(visit.rest, None)
        if name is None:
            line.pop()
            merged = _merged(visit, generation)
            if not line:
                return merged
            line[-1].children = with_child(line[-1].children, visit.name, merged)
        elif (below := _merge_child(visit, name)) is not None:
            line.append(below)


def _visit(name: str, base: Node, mine: Node, now: Node) -> _Visit:
    changed = [name for name, child in mine.children.items() if base.children.get(name) is not child]
    gone = [name for name in base.children if name not in mine.children]
    return _Visit(name, base, mine, now, now.children, iter(changed + gone))


def _merge_child(visit: _Visit, name: str) -> _Visit | None:
    """Merge one child that mine changed, or say what must be visited for it."""
    base, mine, now = visit.base.children.get(name), visit.mine.children.get(name), visit.now.children.get(name)
    if mine is None:
        visit.children = without_child(visit.children, name)
    elif base is now:
        visit.children = with_child(visit.children, name, mine)
    else:
        assert base is not None, f"both sides created {name}"
        assert now is not None, f"{name} was changed and removed"
        return _visit(name, base, mine, now)
    return None


def _merged(visit: _Visit, generation: int) -> Node:
    base, mine, now = visit.base, visit.mine, visit.now
    content = now if mine.generation == base.generation else mine
    listing = now.children_generation if mine.children_generation == base.children_generation else generation
    names_bytes = now.names_bytes + mine.names_bytes - base.names_bytes
    return Node(content.value, content.permissions, visit.children, content.generation, listing, names_bytes)
