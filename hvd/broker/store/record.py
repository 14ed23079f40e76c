"""What a transaction has touched: by path in the order in which it did, and as a tree of names.

The tree of names is what a commit walks beside the trees of nodes (merge.py): where nobody else has changed anything,
it looks at nothing below.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from hvd.broker.store import paths
from hvd.broker.store.changes import Fires
from hvd.broker.store.tree import HEADER_BYTES
from hvd.transport.records import dataclass

KEPT_IN_BYTES = 576
"""What we keep of a path that was touched beside its own bytes, and of a node that is the transaction's own beside its
value. Xenstored keeps less; counted as its records alone, 10,240 paths made the broker grow by 6.9 MiB."""


class Depends(IntEnum):
    """On what of a node a transaction depends. Native code knows the numbers."""

    ON_EXISTENCE = 0
    """It is on the way to what was touched, which would be gone with it."""
    ON_CONTENT = 1
    """Its value, its permissions, whether it exists."""
    ON_LIST = 2
    """The names of its children as well."""
    ON_ALL = 3
    """Everything below it as well: it was removed."""


@dataclass(slots=True)
class Touched:
    """What a transaction did with one path."""

    depends: Depends = Depends.ON_EXISTENCE
    changed: bool = False
    fires: Fires = Fires.NOBODY
    made: bool = False
    """It came into being, and stands last in its list then: if it had been there, it was removed before."""
    below: dict[str, Touched] | None = None
    """By name; none where nothing below was touched."""


Row = tuple[str, Depends, bool, Fires, bool]
"""A path and what was done with it."""
Rows = tuple[int, list[Row]]
"""How many of all were touched by name, and some of them."""


class Record:
    """What one transaction has touched."""

    __slots__ = ("_kept", "by_path", "bytes", "is_asked_for", "named", "root")

    def __init__(self) -> None:
        self.root = Touched()
        self.by_path: dict[str, Touched] = {}
        """What the transaction depends on, in the order in which it was touched."""
        self.named = 0
        """How many of them were touched one by one, and not with one above that was removed: what a commit looks at."""
        self.bytes = 0
        """Of the paths, with what each is kept in. What is on the way to them is in the tree, or was touched itself."""
        self.is_asked_for = False
        """By a snapshot, which is to have it as it was when `ask_for` was called."""
        self._kept: Rows | None = None

    def __len__(self) -> int:
        return len(self.by_path)

    def touch(self, path: str, depends: Depends, *, by_name: bool = True) -> None:
        """From now on the commit depends on this path, and as much as before at least."""
        if self.is_asked_for and self._kept is None:
            self._kept = self.rows()
        touched = self.by_path.get(path)
        if touched is None:
            touched = self.by_path[path] = self._reach(path)
            self.bytes += HEADER_BYTES + KEPT_IN_BYTES + len(path)
            self.named += by_name
        touched.depends = max(touched.depends, depends)

    def _reach(self, path: str) -> Touched:
        each = self.root
        for name in paths.split(path):
            if each.below is None:
                each.below = {}
            following = each.below.get(name)
            if following is None:
                following = each.below[name] = Touched()
            each = following
        return each

    def rows(self) -> Rows:
        """All of it."""
        rows = [(path, each.depends, each.changed, each.fires, each.made) for path, each in self.by_path.items()]
        return self.named, rows

    def ask_for(self) -> None:
        """Whatever is touched from now on, `asked_for` is what was touched by now: copied only if it changes."""
        self.is_asked_for, self._kept = True, None

    def asked_for(self) -> Rows:
        """That, once."""
        rows = self.rows() if self._kept is None else self._kept
        self.ask_no_more()
        return rows

    def ask_no_more(self) -> None:
        """Nobody will."""
        self.is_asked_for, self._kept = False, None

    def add(self, rows: Rows) -> None:
        """Of another, which has all that this one has."""
        self.named, some = rows
        for path, depends, changed, fires, made in some:
            self.touch(path, depends, by_name=False)
            touched = self.by_path[path]
            touched.changed, touched.fires, touched.made = changed, fires, made

    def changed(self) -> Iterator[tuple[str, Fires]]:
        """The paths of what the transaction has changed, and who is to hear of it."""
        for path, touched in self.by_path.items():
            if touched.changed:
                yield path, touched.fires

    def __getstate__(self) -> Rows:
        """Flat: a pickle knows no depth. Who asks for it is no part of it."""
        return self.rows()

    def __setstate__(self, rows: Rows) -> None:
        Record.__init__(self)
        self.add(rows)
