"""Who owns which nodes and how many bytes they are: exact at any moment, and derived from the tree alone."""

from __future__ import annotations

from collections.abc import Iterable

from hvd.broker.store.changes import Edit, Fires
from hvd.broker.store.tree import Node, content_bytes, lookup, subtree
from hvd.transport.ids import DOM0, DomId
from hvd.transport.records import dataclass


@dataclass(slots=True)
class Tally:
    """Nodes of one owner, or by how much they change."""

    nodes: int = 0
    bytes: int = 0


Growth = dict[DomId, Tally]


def growth_of(edits: Iterable[Edit]) -> Growth:
    """What the edits mean for each owner."""
    growth: Growth = {}
    for path, before, after, _ in edits:
        if before is not None and after is not None and before.permissions is after.permissions:
            if more := len(after.value) - len(before.value):
                growth.setdefault(after.permissions[0].who.domid, Tally()).bytes += more
            continue
        if before is not None:
            _charge(growth, path, before, -1)
        if after is not None:
            _charge(growth, path, after, 1)
    return growth


def _charge(growth: Growth, path: str, node: Node, sign: int) -> None:
    owner = node.permissions[0].who.domid
    tally = growth.get(owner)
    if tally is None:
        tally = growth[owner] = Tally()
    tally.nodes += sign
    tally.bytes += sign * content_bytes(path, node)


def add(total: Growth, growth: Growth) -> None:
    """Add growth to a total; who owns nothing any more is not in it."""
    for owner, more in growth.items():
        tally = total.setdefault(owner, Tally())
        tally.nodes += more.nodes
        tally.bytes += more.bytes
        if tally.nodes == 0 and tally.bytes == 0:
            del total[owner]


class Accounts:
    """The tallies of the committed tree, and the paths that each guest owns."""

    def __init__(self, root: Node) -> None:
        self._tallies: Growth = {}
        self._owned: dict[DomId, set[str]] = {}
        self.settle([Edit(path, None, node, Fires.NOBODY) for path, node in subtree("/", root)], root)

    def settle(self, edits: list[Edit], root: Node) -> None:
        """The edits have been made: `count` and `note` them."""
        self.count(growth_of(edits))
        self.note(edits, root)

    def count(self, growth: Growth) -> None:
        """Who owns how much has changed by this."""
        add(self._tallies, growth)

    def leave(self, removal: Edit) -> None:
        """The one node of this edit has gone."""
        assert removal.before is not None
        growth: Growth = {}
        _charge(growth, removal.path, removal.before, -1)
        add(self._tallies, growth)

    def note(self, edits: Iterable[Edit], root: Node) -> None:
        """Who owns which paths; `root` is the tree by now, in which they may have changed once more."""
        for path, before, after, _ in edits:
            if before is not None and after is not None and before.permissions is after.permissions:
                continue
            owners = {node.permissions[0].who.domid for node in (before, after) if node is not None} - {DOM0}
            if owners:
                self._note_owner(path, owners, lookup(root, path))

    def _note_owner(self, path: str, among: set[DomId], node: Node | None) -> None:
        """Whose the path is, if it is one of these, and whose it is not."""
        for owner in among:
            if node is not None and node.permissions[0].who.domid == owner:
                self._owned.setdefault(owner, set()).add(path)
            else:
                self._owned.get(owner, set()).discard(path)

    def of(self, domid: DomId) -> Tally:
        """What a domain owns."""
        return self._tallies.get(domid) or Tally()

    def owned_by(self, domid: DomId) -> list[str]:
        """The paths that a guest owns, parents before children."""
        return sorted(self._owned.get(domid, ()))

    def forget(self, domid: DomId) -> None:
        """The domain is gone, and everything it owned with it."""
        owned = self._owned.pop(domid, set())
        assert not owned, f"domain {domid} still owns {owned}"

    def nodes(self) -> int:
        """All there are."""
        return sum(tally.nodes for tally in self._tallies.values())
