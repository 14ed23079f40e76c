"""Two mount namespaces of one process: its own, and the host's, which it looks into for what its domain is given.

Whoever lets go of the host's mounts waits until every CPU has looked away: a millisecond or two. So a process that
stands by does that before it knows whose it is, and goes back for what its domain is given, file by file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hvd.transport._native import enter_mounts, leave_namespaces, make_mounts_followers
from hvd.transport.process import CLONE_NEWNS


class Stranded(Exception):
    """The kernel does not let it back: whoever is here has neither root, and has to end."""


class HostMounts:
    """Of a process that lives in a copy of them from here on, and may change it. While it has a /proc."""

    def __init__(self) -> None:
        """OSError when the kernel refuses, and it lives where it did, or in a copy of that."""
        self._opened: list[int] = []
        try:
            self._host = self._open_namespace(), self._open_root()
            make_mounts_followers()  # what a child mounts that goes back is not the host's; the host's later is here
            leave_namespaces(CLONE_NEWNS)
            self.namespace = self._open_namespace()
            """Our own."""
            enter_mounts(self.namespace, self._open_root())  # who may not do this may not go back either
            os.close(self._opened.pop())
        except OSError:
            self.close()
            raise

    def moved(self) -> None:
        """Our root is another one now."""
        self._own = self.namespace, self._open_root()

    @contextlib.contextmanager
    def seen(self) -> Iterator[None]:
        """Paths are the host's meanwhile. Not before we have `moved`."""
        _enter(*self._host)
        try:
            yield
        finally:
            _enter(*self._own)

    def go_back(self) -> None:
        """To the host's, for good."""
        _enter(*self._host)
        self.close()

    @property
    def descriptors(self) -> list[int]:
        return list(self._opened)

    def close(self) -> None:
        """From here on there is no way to the host's."""
        while self._opened:
            os.close(self._opened.pop())

    def _open_namespace(self) -> int:
        return self._open("/proc/self/ns/mnt", os.O_RDONLY)

    def _open_root(self) -> int:
        return self._open("/", os.O_PATH | os.O_DIRECTORY)

    def _open(self, path: str, flags: int) -> int:
        self._opened.append(os.open(path, flags | os.O_CLOEXEC))
        return self._opened[-1]


def _enter(namespace: int, root: int) -> None:
    try:
        enter_mounts(namespace, root)
    except OSError as error:
        raise Stranded(f"the kernel does not let us into a mount namespace that we have left: {error}") from None
