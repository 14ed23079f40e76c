"""How a workload is told to come to its end: a node in its XenStore home that somebody writes."""

from __future__ import annotations

from hvd.domains.guest import Guest

FINISH = "data/finish"


class Finish:
    """`told` is true once the node is there and the domain has waited since."""

    def __init__(self, guest: Guest) -> None:
        self._store = guest.runtime.store
        self.told = False
        self._store.watch(FINISH, self._on_change)

    def _on_change(self, path: str) -> None:
        self.told = self._store.read(FINISH) is not None
