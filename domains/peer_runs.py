"""The runs of a frontend's grants that its backend keeps mapped: each costs a hypercall, once."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hvd.domains.grants import Grants, MappedPages
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef


class PeerRuns:
    """One device's."""

    def __init__(
        self, grants: Grants, frontend: DomId, most: int, add: Callable[[int, memoryview, bool], None]
    ) -> None:
        """`add(ref, memory, writable)` tells native code of each that is mapped."""
        self._grants = grants
        self._frontend = frontend
        self._most = most
        self._add = add
        self._mapped: list[MappedPages] = []

    @property
    def full(self) -> bool:
        """There are as many as there may be."""
        return len(self._mapped) >= self._most

    def map(self, ref: int, *, whole: bool = True) -> None:
        """The run that a ref belongs to, or its page alone; for writing, if that is granted, else for reading.

        HypercallError or OSError when it cannot be mapped.
        """
        try:
            self._map(ref, whole=whole, writable=True)
        except HypercallError as error:
            if error.errno != errno.EACCES:
                raise
            self._map(ref, whole=whole, writable=False)

    def _map(self, ref: int, *, whole: bool, writable: bool) -> None:
        mapped = self._grants.map(self._frontend, GrantRef(ref), 0 if whole else 1, writable=writable)
        self._mapped.append(mapped)
        self._add(mapped.ref, mapped.view, writable)

    def unmap(self) -> None:
        """All of them. Native code has forgotten them by now."""
        while self._mapped:
            self._grants.unmap(self._mapped.pop())
