"""Who watches what: found by path, so that a write costs what is watched on its way, however many watches there are."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from hvd.broker.store import paths
from hvd.broker.store.errors import StoreError
from hvd.broker.store.quotas import TOKEN_BYTES_MAX
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass, field

RING = 1
"""The connection that a domain's ring page is; 0 is the one by hypercall, and what its socket accepts comes behind.

Connections to the host's socket have negative numbers: they are dom0's, and outlive its process.
"""


HERE, NAMES_MAX = "", 5
"""No name is empty; and so many names of a path are looked at by whoever only asks whether anybody might watch it."""
Level = dict[str, "Level | int"]


class Watch(NamedTuple):
    """One watch: everything at and below a path, or a special path such as @releaseDomain."""

    domid: DomId
    path: str
    token: str
    relative: bool
    """It was asked for by a relative path, and is told of relative ones."""
    connection: int = 0
    """Which of the domain's connections asked: each has watches of its own."""

    def sees(self, path: str) -> str:
        """The path at or below its own, as the watcher is to be told."""
        return paths.as_seen_from(self.domid, path) if self.relative else path


def check_token(token: str) -> None:
    """EINVAL for what cannot travel in a watch event."""
    size = len(token.encode("utf-8", "surrogateescape"))
    if size > TOKEN_BYTES_MAX or "\0" in token:
        raise StoreError(errno.EINVAL, f"a token has no NUL and at most {TOKEN_BYTES_MAX} bytes, this one {size}")


@dataclass(slots=True)
class _Own:
    """The watches of one connection, by path and token."""

    watches: dict[tuple[str, str], Watch] = field(default_factory=dict)
    bytes: int = 0


class Watches:
    """The table; within one path in the order in which they were set.

    Those of a connection that is over are nobody's at once, and are taken off the lists when `dropped` and `unlist` are
    asked for: there may be thousands.
    """

    def __init__(self) -> None:
        self.by_path: dict[str, dict[tuple[DomId, int, str], Watch]] = {}
        """Some of a path may be nobody's; where nobody watches there is none."""
        self.by_name: Level = {}
        """Those paths, but for special ones, as a tree of their first names. HERE: a path ends there, or goes on."""
        self._of: dict[DomId, dict[int, _Own]] = {}
        self._counts: Counter[DomId] = Counter()
        self._bytes: Counter[DomId] = Counter()
        self._all: dict[Watch, None] = {}
        self.version = 0
        """Another after each change of what `in_order` returns."""
        self._dropped: list[dict[tuple[str, str], Watch]] = []

    def add(self, watch: Watch) -> None:
        """EEXIST if the connection has this token on this path already."""
        connections = self._of.setdefault(watch.domid, {})
        own = connections.setdefault(watch.connection, _Own())
        if (watch.path, watch.token) in own.watches:
            raise StoreError(errno.EEXIST, f"domain {watch.domid} has a watch on {watch.path} with this token")
        if (watch.domid, watch.connection, watch.token) in self.by_path.get(watch.path, {}):  # dropped, and set again
            self.unlist(self.dropped())
        own.watches[watch.path, watch.token] = watch
        if watch.path not in self.by_path:
            self.by_path[watch.path] = {}
            self._plant(watch.path)
        self.by_path[watch.path][watch.domid, watch.connection, watch.token] = watch
        self._count(own, watch.domid, 1, size_of(watch))
        self._all[watch] = None
        self.version += 1

    def remove(self, domid: DomId, connection: int, path: str, token: str) -> None:
        """ENOENT if there is no such watch."""
        own = self._of.get(domid, {}).get(connection, _Own())
        watch = own.watches.pop((path, token), None)
        if watch is None:
            raise StoreError(errno.ENOENT, f"domain {domid} does not watch {path} with token {token!r}")
        self._count(own, domid, -1, -size_of(watch))
        self._forget_empty(domid, connection)
        self.unlist([watch])

    def _count(self, own: _Own, domid: DomId, watches: int, size: int) -> None:
        own.bytes += size
        self._counts[domid] += watches
        self._bytes[domid] += size

    def _forget_empty(self, domid: DomId, connection: int) -> None:
        if not self._of[domid][connection].watches:
            del self._of[domid][connection]
        if not self._of[domid]:
            del self._of[domid], self._counts[domid], self._bytes[domid]

    def drop_connection(self, domid: DomId, connection: int) -> None:
        """The watches of one of its connections are nobody's any more."""
        own = self._of.get(domid, {}).get(connection)
        if own is not None:
            self._dropped.append(own.watches)
            self._count(own, domid, -len(own.watches), -own.bytes)
            own.watches = {}
            self._forget_empty(domid, connection)

    def dropped(self) -> Iterator[Watch]:
        """Each that is nobody's, once: `unlist` it."""
        while self._dropped:
            if not self._dropped[-1]:
                self._dropped.pop()
            else:
                yield self._dropped[-1].popitem()[1]

    def unlist(self, watches: Iterable[Watch]) -> None:
        """They are nobody's: take them off the lists."""
        for watch in watches:
            del self._all[watch]
            self.version += 1
            here = self.by_path[watch.path]
            del here[watch.domid, watch.connection, watch.token]
            if not here:
                del self.by_path[watch.path]
                self._uproot(watch.path)

    def _plant(self, path: str) -> None:
        if path.startswith("/"):
            level: Any = self.by_name
            for name in paths.split(path)[:NAMES_MAX]:
                level = level.setdefault(name, {})
            level[HERE] = level.get(HERE, 0) + 1

    def _uproot(self, path: str) -> None:
        if path.startswith("/"):
            names = paths.split(path)[:NAMES_MAX]
            levels: list[Any] = [self.by_name]
            for name in names:
                levels.append(levels[-1][name])
            levels[-1][HERE] -= 1
            if not levels[-1][HERE]:
                del levels[-1][HERE]
            while names and not levels[-1]:
                levels.pop()
                del levels[-1][names.pop()]

    def connections(self, domid: DomId) -> list[int]:
        """Which of a domain's connections have watches."""
        return list(self._of.get(domid, ()))

    def _heard(self, found: Collection[Watch]) -> Collection[Watch]:
        """Those among them that are somebody's."""
        return [watch for watch in found if self._is_somebodys(watch)] if self._dropped and found else found

    def _is_somebodys(self, watch: Watch) -> bool:
        own = self._of.get(watch.domid, {}).get(watch.connection)
        return own is not None and own.watches.get((watch.path, watch.token)) is watch

    def __len__(self) -> int:
        return len(self._all)

    def in_order(self) -> list[Watch]:
        """Every one, in the order in which they were set: the same table is made by adding them again."""
        return list(self._all)

    def on(self, path: str) -> Collection[Watch]:
        """Those on exactly this path."""
        here = self.by_path.get(path)
        return () if here is None else self._heard(here.values())

    def on_or_above(self, path: str) -> Collection[Watch]:
        """Those on this path and on every path above it, the root's first."""
        at = self.by_path
        if not at:
            return ()
        found = list(at["/"].values()) if "/" in at else []
        end = path.find("/", 1)
        while end > 0:
            if (here := at.get(path[:end])) is not None:
                found += here.values()
            end = path.find("/", end + 1)
        if path != "/" and path in at:
            found += at[path].values()
        return self._heard(found)

    def count(self, domid: DomId) -> int:
        """How many a domain has."""
        return self._counts.get(domid, 0)

    def bytes(self, domid: DomId) -> int:
        """What a domain's watches cost it."""
        return self._bytes.get(domid, 0)


def size_of(watch: Watch) -> int:
    """What a watch costs its domain, in bytes."""
    return len(watch.path) + len(watch.token.encode("utf-8", "surrogateescape"))
