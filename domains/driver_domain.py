"""A driver domain as its author sees it: it serves the devices that it finds in its `backend` directory."""

from __future__ import annotations

from collections.abc import Callable

from hvd.domains.runtime import Runtime
from hvd.domains.xenbus import XenbusBackend
from hvd.transport.errors import HvdError
from hvd.transport.ids import DomId

DEVICES_MAX = 1024


class DriverDomain:
    """All backends of one domain, made and unmade as the toolstack makes and unmakes devices."""

    def __init__(self, runtime: Runtime, log: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._log = log
        self._backends: dict[tuple[str, str, str], XenbusBackend | None] = {}
        runtime.store.watch("backend", self._on_change)  # fires at once: the first scan

    def _on_change(self, path: str) -> None:
        """Only devices coming and going matter: backend/<kind>/<domid>/<devid> and above, or toolstack nodes."""
        if path.count("/") <= 3 or path.endswith("/frontend"):
            self.scan()

    def scan(self) -> None:
        """Make what is new, unmake what is gone."""
        found = set(self._devices())
        for key in [key for key in self._backends if key not in found]:
            backend = self._backends.pop(key)
            if backend is not None:
                backend.close()
        for key in found - self._backends.keys():
            if len(self._backends) >= DEVICES_MAX:
                self._log(f"device {'/'.join(key)} is one too many: {DEVICES_MAX} are served at most")
                return
            self._backends[key] = self._make(key)

    def _devices(self) -> list[tuple[str, str, str]]:
        store = self._runtime.store
        return [
            (kind, domid, devid)
            for kind in store.directory("backend")
            for domid in store.directory(f"backend/{kind}")
            for devid in store.directory(f"backend/{kind}/{domid}")
            if store.read(f"backend/{kind}/{domid}/{devid}/frontend") is not None
        ]

    def _make(self, key: tuple[str, str, str]) -> XenbusBackend | None:
        kind, domid, devid = key
        try:
            return XenbusBackend(self._runtime, kind, DomId(int(domid)), devid, self._log)
        except (HvdError, ValueError) as error:
            self._log(f"device {kind} {devid} of domain {domid}: {error}")
            return None
