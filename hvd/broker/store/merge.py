"""Three versions of a tree into one: what a transaction changed since its snapshot, put into the tree as it is now.

Versions share what they have in common, so only nodes that differ are visited: the work grows with the fewer changes of
the two sides, not with the tree, nor with a transaction of thousands of nodes beside which little happened. The caller
has checked by Transaction.conflict_with that the sides did not change the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator

from hvd.broker.store import paths
from hvd.broker.store.children import NO_CHILDREN, Children, Difference, apart, differing, with_child, without_child
from hvd.broker.store.tree import Node
from hvd.transport.records import dataclass


def differences(one: Node, other: Node) -> Iterator[tuple[str, Node | None, Node | None]]:
    """Every path whose node is not the same in both, and the two; parents before children."""
    line: list[tuple[str, Node | None, Node | None]] = [("/", one, other)]
    while line:
        path, before, after = line.pop()
        if before is after:
            continue
        yield path, before, after
        first, second = (NO_CHILDREN if node is None else node.children for node in (before, after))
        line.extend((paths.child(path, name), was, has_become) for name, was, has_become in differing(first, second))


@dataclass(slots=True)
class _Visit:
    """One node that both sides changed, at or below."""

    name: str
    base: Node
    mine: Node
    now: Node
    other: Children
    """Of the side that changed more: what the other has changed is put into them."""
    children: Children
    """The merged ones, complete when `rest` is empty."""
    rest: Iterator[Difference]
    """Children that the side with fewer changes has changed, still to be merged."""


def merge(base: Node, mine: Node, now: Node, generation: int) -> Node:
    """`now` with everything that became of `base` in `mine`; lists of children that mine changed get `generation`."""
    line = [_visit("", base, mine, now)]
    while True:
        visit = line[-1]
        difference = next(visit.rest, None)
        if difference is None:
            line.pop()
            merged = _merged(visit, generation)
            if not line:
                return merged
            line[-1].children = with_child(line[-1].children, visit.name, merged)
        elif (below := _merge_child(visit, *difference)) is not None:
            line.append(below)


def _visit(name: str, base: Node, mine: Node, now: Node) -> _Visit:
    mine_is_less = apart(base.children, mine.children) <= apart(base.children, now.children)
    less, other = (mine, now) if mine_is_less else (now, mine)
    rest = differing(base.children, less.children)
    return _Visit(name, base, mine, now, other.children, other.children, iter(rest))


def _merge_child(visit: _Visit, name: str, base: Node | None, changed: Node | None) -> _Visit | None:
    """Merge one child that one side changed, or say what must be visited for it."""
    other = visit.other.get(name)
    if other is base:
        children = visit.children
        visit.children = without_child(children, name) if changed is None else with_child(children, name, changed)
        return None
    assert base is not None, f"both sides created {name}"
    mine, now = visit.mine.children.get(name), visit.now.children.get(name)
    assert mine is not None and now is not None, f"{name} was changed and removed"
    return _visit(name, base, mine, now)


def _merged(visit: _Visit, generation: int) -> Node:
    base, mine, now = visit.base, visit.mine, visit.now
    content = now if mine.generation == base.generation else mine
    listing = now.children_generation if mine.children_generation == base.children_generation else generation
    names_bytes = now.names_bytes + mine.names_bytes - base.names_bytes
    return Node(content.value, content.permissions, visit.children, content.generation, listing, names_bytes)
