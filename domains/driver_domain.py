"""A driver domain as its author sees it: it serves the devices that it finds in its `backend` directory."""

from __future__ import annotations

from collections.abc import Callable

from hvd.domains.device import Keys
from hvd.domains.runtime import Runtime
from hvd.domains.xenbus import XenbusBackend
from hvd.transport.errors import HvdError
from hvd.transport.ids import DomId

DEVICES_MAX = 1024
LOOK_TIMEOUT_S = 30.0
LEVELS = 3
"""backend/<kind>/<domid>/<devid>."""


class DriverDomain:
    """All backends of one domain, made and unmade as the toolstack makes and unmakes devices.

    Those that there are are offered when it is made: a driver domain is ready when its guests can connect.
    """

    def __init__(self, runtime: Runtime, log: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._log = log
        self._backends: dict[tuple[str, str, str], XenbusBackend | None] = {}
        self._has_looked = False
        runtime.store.watch("backend", self._on_change)  # fires at once: the first scan
        runtime.wait_until(lambda: self._has_looked, "its first look at its devices", LOOK_TIMEOUT_S)

    def _on_change(self, path: str) -> None:
        """Only devices coming and going matter: backend/<kind>/<domid>/<devid> and above, or toolstack nodes."""
        if path.count("/") <= 3 or path.endswith("/frontend"):
            self.scan()
            self._has_looked = True

    def scan(self) -> None:
        """Make what is new, unmake what is gone."""
        found = self._devices()
        for key in [key for key in self._backends if key not in found]:
            backend = self._backends.pop(key)
            if backend is not None:
                backend.close()
        for key in found.keys() - self._backends.keys():
            if len(self._backends) >= DEVICES_MAX:
                self._log(f"device {'/'.join(key)} is one too many: {DEVICES_MAX} are served at most")
                return
            self._backends[key] = self._make(key, found[key])

    def _devices(self) -> dict[tuple[str, str, str], Keys]:
        """The keys of each: a level of the tree takes one hypercall, however many devices there are."""
        store = self._runtime.store
        paths = ["backend"]
        for _ in range(LEVELS):
            below = store.directories(paths)
            paths = [f"{path}/{name}" for path, names in zip(paths, below, strict=True) for name in names]
        found = zip(paths, store.read_all_each(paths), strict=True)
        return {_key(path): keys for path, keys in found if "frontend" in keys}

    def _make(self, key: tuple[str, str, str], keys: Keys) -> XenbusBackend | None:
        kind, domid, devid = key
        try:
            return XenbusBackend(self._runtime, kind, DomId(int(domid)), devid, keys=keys, log=self._log)
        except (HvdError, ValueError) as error:
            self._log(f"device {kind} {devid} of domain {domid}: {error}")
            return None


def _key(path: str) -> tuple[str, str, str]:
    _, kind, domid, devid = path.split("/")
    return kind, domid, devid
