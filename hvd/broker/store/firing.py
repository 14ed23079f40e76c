"""Who hears of a change, and how many are told in one go: what that takes grows with the watches, not with the change.

So a call, or a multicall, looks at a bounded number of watches; the others are looked at in turn, while its caller
waits (sweeps.py). The tree has changed by then as a whole. What is read of it is never older than what is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from hvd.broker.store import mandatory, paths
from hvd.broker.store.changes import Edit, Fires
from hvd.broker.store.domains import Domains
from hvd.broker.store.events import Events
from hvd.broker.store.permissions import READ, Permissions, Principal, may
from hvd.broker.store.quotas import Quotas
from hvd.broker.store.sweeps import Sweep
from hvd.broker.store.tree import Node, lookup
from hvd.broker.store.watches import Watch, Watches
from hvd.transport.ids import DOM0, DomId

LOOKS_PER_SLICE = 200
"""Watches that are looked at at once: a fifth of a millisecond, and as much again for those who are told."""
Look = tuple[Watch, str] | None
"""Who is to be told, and of which path; None: nobody."""
INTRODUCE = "@introduceDomain"
RELEASE = "@releaseDomain"


class Firing:
    """The part of the engine that tells of changes."""

    root: Node
    quotas: Quotas
    privileged: Quotas
    domains: Domains
    watches: Watches
    events: Events
    special_permissions: dict[str, Permissions]
    _policy: mandatory.Policy | None

    def __init__(self) -> None:
        self._looks_left: int | None = None
        """Of a multicall that is being carried out; never of a command that is over."""

    def limits(self, domid: DomId) -> Quotas:
        """What bounds this domain."""
        return self.privileged if domid == DOM0 else self.quotas

    @contextmanager
    def together(self) -> Iterator[None]:
        """The calls made in here look at no more watches at once than a single one may."""
        self._looks_left = LOOKS_PER_SLICE
        try:
            yield
        finally:
            self._looks_left = None

    def fire(self, root_before: Node, edits: list[Edit]) -> Sweep[Look] | None:
        """Tell those who watch these, and may know; what is left of that when as many were looked at as may be.

        Behind the first that is left nothing is told at once, so that everybody hears in the order of the changes.
        """
        left = LOOKS_PER_SLICE if self._looks_left is None else self._looks_left
        rest: list[Edit] = []
        for number, edit in enumerate(edits):
            watches = self._watching(edit) if left else ()
            if len(watches) > left or not left:
                rest, left = edits[number:], 0
                break
            left -= len(watches)
            self._tell(self._looks(root_before, edit, watches))
        if self._looks_left is not None:
            self._looks_left = left
        if not rest:
            return None
        return Sweep(None, self._looks_in_turn(root_before, rest), self._tell, per_slice=LOOKS_PER_SLICE)

    def fire_special(self, name: str) -> None:
        """@introduceDomain or @releaseDomain has happened; dom0 decides by their permissions who else hears."""
        for watch in self.watches.on(name):
            if may(self.special_permissions[name], self.domains[watch.domid].who, READ):
                self.events.add(watch, name, self.limits(watch.domid).events_max)

    def _watching(self, edit: Edit) -> Collection[Watch]:
        match edit.fires:
            case Fires.NOBODY:
                return ()
            case Fires.ON_IT:
                return self.watches.on(edit.path)
            case Fires.ON_IT_AND_ABOVE:
                return self.watches.on_or_above(edit.path)

    def _looks_in_turn(self, root_before: Node, edits: list[Edit]) -> Iterator[Look]:
        for edit in edits:
            yield from self._looks(root_before, edit, self._watching(edit), in_turn=True)

    def _looks(
        self, root_before: Node, edit: Edit, watches: Collection[Watch], *, in_turn: bool = False
    ) -> Iterator[Look]:
        """One for each of the watches. `in_turn`: some may have become nobody's since they were found."""
        heard_by: dict[DomId, bool] = {}
        for watch in watches:
            if in_turn and not self.watches.is_somebodys(watch):
                yield None
                continue
            domid = watch.domid
            if domid not in heard_by:
                heard_by[domid] = self._may_hear(self.domains[domid].who, root_before, edit)
            yield (watch, edit.path) if heard_by[domid] else None

    def _tell(self, looks: Iterable[Look]) -> None:
        for look in looks:
            if look is not None:
                watch, path = look
                self.events.add(watch, path, self.limits(watch.domid).events_max)

    def _may_hear(self, who: Principal, root_before: Node, edit: Edit) -> bool:
        """Whether it tells only what `who` may see: a readable node, or a change in a readable list (XSA-115)."""
        path, before, after, _ = edit
        told = [node for node in (before, after) if node is not None]
        if not any(may(node.permissions, who, READ) for node in told):
            if (before is None) == (after is None):
                return False
            parent = lookup(root_before if after is None else self.root, paths.parent(path))
            if parent is None or not may(parent.permissions, who, READ):
                return False
            told.append(parent)
        return all(mandatory.allows(self._policy, who.domid, node.permissions, READ) for node in told)
