"""The runs of a frontend's grants that its backend keeps mapped: each costs a hypercall, once.

A frontend may name the first refs of its runs in RUNS: those are mapped with its rings, before a request names them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from hvd.domains.device import NUMBER_DIGITS_MAX, Keys, number_in
from hvd.domains.grants import Grants, MappedPages
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import GRANT_REF_MAX, DomId, GrantRef

RUNS = "hvd-runs"
RUNS_NAMED_MAX = 4


def named_runs(untrusted_keys: Keys) -> list[GrantRef]:
    """The refs in RUNS, none if there is no such key; PeerFault on nonsense."""
    names = untrusted_keys.get(RUNS, "")[: RUNS_NAMED_MAX * (NUMBER_DIGITS_MAX + 1)].split()
    if len(names) > RUNS_NAMED_MAX:
        raise PeerFault(f"key {RUNS} names {len(names)} runs of grants; {RUNS_NAMED_MAX} is the most")
    return [GrantRef(number_in({RUNS: name}, RUNS, GRANT_REF_MAX)) for name in names]


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

    def take(self, mapped: list[MappedPages]) -> None:
        """Those that were mapped for writing with the frontend's rings are ours from here on: the list is empty."""
        while mapped:
            run = mapped.pop()
            self._mapped.append(run)
            self._add(run.ref, run.view, True)

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
