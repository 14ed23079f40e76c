"""Who watches what: found by path, so that a write costs what is watched on its way, however many watches there are."""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import NamedTuple

from hvd.broker.store import paths
from hvd.broker.store.errors import StoreError
from hvd.broker.store.quotas import TOKEN_BYTES_MAX
from hvd.transport.ids import DomId

RING = 1
"""The connection that a domain's ring page is; 0 is the one by hypercall, and what its socket accepts comes behind.

Connections to the host's socket have negative numbers: they are dom0's, and outlive its process.
"""


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


class Watches:
    """The table; within one path in the order in which they were set."""

    def __init__(self) -> None:
        self._at: dict[str, dict[tuple[DomId, int, str], Watch]] = {}
        self._of: dict[DomId, dict[tuple[int, str, str], Watch]] = {}
        self._bytes: dict[DomId, int] = {}
        self._all: dict[Watch, None] = {}

    def add(self, watch: Watch) -> None:
        """EEXIST if the connection has this token on this path already."""
        mine = self._of.setdefault(watch.domid, {})
        if (watch.connection, watch.path, watch.token) in mine:
            raise StoreError(errno.EEXIST, f"domain {watch.domid} has a watch on {watch.path} with this token")
        mine[watch.connection, watch.path, watch.token] = watch
        self._at.setdefault(watch.path, {})[watch.domid, watch.connection, watch.token] = watch
        self._bytes[watch.domid] = self.bytes(watch.domid) + size_of(watch)
        self._all[watch] = None

    def remove(self, domid: DomId, connection: int, path: str, token: str) -> None:
        """ENOENT if there is no such watch."""
        watch = self._of.get(domid, {}).pop((connection, path, token), None)
        if watch is None:
            raise StoreError(errno.ENOENT, f"domain {domid} does not watch {path} with token {token!r}")
        self._bytes[domid] -= size_of(watch)
        self._unlist(watch)

    def drop(self, domid: DomId) -> None:
        """Remove all of a domain's watches."""
        for watch in self._of.pop(domid, {}).values():
            self._unlist(watch)
        self._bytes.pop(domid, None)

    def drop_connection(self, domid: DomId, connection: int) -> None:
        """Remove the watches of one of its connections."""
        for watch in [watch for watch in self._of.get(domid, {}).values() if watch.connection == connection]:
            self.remove(domid, connection, watch.path, watch.token)

    def connections(self, domid: DomId) -> set[int]:
        """Which of a domain's connections have watches."""
        return {connection for connection, _, _ in self._of.get(domid, ())}

    def _unlist(self, watch: Watch) -> None:
        del self._all[watch]
        here = self._at[watch.path]
        del here[watch.domid, watch.connection, watch.token]
        if not here:
            del self._at[watch.path]

    def __len__(self) -> int:
        return len(self._all)

    def in_order(self) -> list[Watch]:
        """Every one, in the order in which they were set: the same table is made by adding them again."""
        return list(self._all)

    def on(self, path: str) -> Collection[Watch]:
        """Those on exactly this path."""
        here = self._at.get(path)
        return () if here is None else here.values()

    def on_or_above(self, path: str) -> Collection[Watch]:
        """Those on this path and on every path above it, the root's first."""
        at = self._at
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
        return found

    def count(self, domid: DomId) -> int:
        """How many a domain has."""
        return len(self._of.get(domid, ()))

    def bytes(self, domid: DomId) -> int:
        """What a domain's watches cost it."""
        return self._bytes.get(domid, 0)


def size_of(watch: Watch) -> int:
    """What a watch costs its domain, in bytes."""
    return len(watch.path) + len(watch.token.encode("utf-8", "surrogateescape"))
