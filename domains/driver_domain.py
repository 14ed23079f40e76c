"""A driver domain as its author sees it: it serves the devices that it finds in its `backend` directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from hvd.domains.device import Keys
from hvd.domains.drivers import find_driver
from hvd.domains.hypercalls import LINGER_S
from hvd.domains.media import Asked
from hvd.domains.runtime import Runtime
from hvd.domains.timer import Timer
from hvd.domains.xenbus import CLOSED_FOR, INCARNATION, Found, XenbusBackend
from hvd.transport import messages as m
from hvd.transport.errors import HvdError, LocalError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.xenbus_state import XenbusState

DEVICES_MAX = 1024
AT_ONCE = 16
"""Devices that are taken up together: three or four entries of a multicall each."""
LEVELS = 3
"""backend/<kind>/<domid>/<devid>"""
LINGER_NS = int(LINGER_S * 1e9) + 1_000_000
"""Behind the moment, whatever the rounding."""
Key = tuple[str, str, str]


class DriverDomain:
    """All backends of one domain, made and unmade as the toolstack makes and unmakes devices.

    Those that there were when it was let run are offered when it is made: its guests can connect when it is ready.
    """

    def __init__(self, runtime: Runtime, log: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self._log = log
        self._backends: dict[Key, XenbusBackend | None] = {}
        self._changed: dict[Key, Keys | None] = {}
        """Of whose frontends something was heard, and what they say if that came with it."""
        self._may_have_come = False
        """Devices, or gone."""
        self._unsaid: list[tuple[str, Keys]] | None = None
        """What backends want written, while several have their turn."""
        served = runtime.served
        runtime.take_ahead()
        runtime.hypercalls.linger()
        self._until = time.monotonic() + LINGER_S
        """Nobody waits longer for frontends that do not come."""
        self._take_up(served)
        self._rests = False
        """Whether we watch what comes and goes, and call as everybody does."""
        runtime.soon(self._catch_up)
        self._timer = Timer(runtime)
        if self._backends:
            self._timer.after(LINGER_NS, self._catch_up)

    def close(self) -> None:
        """Let go of all devices, as if they had been taken away; for who goes on without."""
        self._timer.close()
        while self._backends:
            _, backend = self._backends.popitem()
            if backend is not None:
                backend.close()

    def _on_change(self, path: str) -> None:
        """Only devices coming and going matter: backend/<kind>/<domid>/<devid> and above, or toolstack nodes."""
        if path.count("/") <= LEVELS or path.endswith("/frontend"):
            self._drop_replaced(path)
            self._may_have_come = True
            self._store.afterwards(self._catch_up)
        elif path.count("/") == LEVELS + 1:
            self._tell(path)

    def _tell(self, path: str) -> None:
        """A key of one device has changed; most are written by the device itself, and by nobody else."""
        _, kind, domid, devid, name = path.split("/")
        backend = self._backends.get((kind, domid, devid))
        if backend is not None and name in backend.device.CHANGING:
            backend.device.changed(name, self._store.read_text(path))

    def _drop_replaced(self, path: str) -> None:
        """One that was taken away and plugged in again before we looked is another one: nothing is offered or closed.

        Its old frontend's end may have had us write a state.
        """
        if path.count("/") < LEVELS:
            return
        _, kind, domid, devid, *_ = path.split("/")
        backend = self._backends.get((kind, domid, devid))
        if backend is None:
            self._backends.pop((kind, domid, devid), None)  # given up: this may be another
            return
        if backend.state is XenbusState.INITIALISING:
            return
        self._clear_away(backend.path)
        if self._store.read_all(backend.path).keys().isdisjoint((INCARNATION, CLOSED_FOR)):
            del self._backends[kind, domid, devid]
            backend.close()

    def _clear_away(self, path: str) -> None:
        """A device that was removed in the very moment of an answer of ours: that has made its directory anew."""

        def body(tx: int) -> None:
            if self._store.read(f"{path}/frontend", tx) is None:
                self._store.remove(path, tx)

        self._store.transaction(body)

    def scan(self) -> None:
        """Make what is new, unmake what is gone."""
        found = self._devices()
        for key in [key for key in self._backends if key not in found]:
            backend = self._backends.pop(key)
            if backend is not None:
                backend.close()
        self._take_up(found - self._backends.keys())

    def _devices(self) -> set[Key]:
        """What there is, asked for level by level; what is below the devices that are known, at once."""
        known = {"/".join(("backend", *key[:depth])) for key in self._backends for depth in range(LEVELS)}
        children: dict[str, list[str]] = {}
        asked = sorted({"backend", *known})
        while asked:
            children.update(zip(asked, self._store.read_directories(asked), strict=True))
            paths = [f"{path}/{name}" for path, names in children.items() for name in names]
            asked = sorted({path for path in paths if path.count("/") < LEVELS} - children.keys())
        devices = [path.split("/")[1:] for path in paths if path.count("/") == LEVELS]
        return {(kind, domid, devid) for kind, domid, devid in devices}

    def _take_up(self, keys: Iterable[Key]) -> None:
        """Make the backends of devices that are new, as far as there are such devices."""
        new = list(keys)
        for start in range(0, len(new), AT_ONCE):
            self._take_up_some(new[start : start + AT_ONCE])

    def _take_up_some(self, some: list[Key]) -> None:
        """All are offered before the first is attached: what their frontends say comes with their watches."""
        fronts = [f"/local/domain/{domid}/device/{kind}/{devid}" for kind, domid, devid in some]
        watched = [(f"{front}/state", partial(self._hear, key)) for front, key in zip(fronts, some, strict=True)]
        backs = ["/".join(("backend", *key)) for key in some]
        media = _media_of(some)
        opens = [m.PhysdevOpenMedium(*one) for one in media]
        tokens, read, opened = self._store.follow(watched, backs, opens)
        self._runtime.media.have(dict(zip(media, opened, strict=True)))
        with self._saying_together():
            for number, (key, token) in enumerate(zip(some, tokens, strict=True)):
                if isinstance(token, HvdError):
                    self._log(f"device {'/'.join(key)}: {token}")
                    self._backends[key] = None
                else:
                    self._add(key, Found(key[2], read[number], fronts[number], token))
        self._runtime.media.close_unwanted()

    def _is_offered(self, key: Key) -> bool:
        backend = self._backends.get(key)
        return backend is not None and backend.state is XenbusState.INIT_WAIT

    def _add(self, key: Key, found: Found) -> None:
        """A device of which there is no `frontend` yet, or any more, is none."""
        if len(self._backends) >= DEVICES_MAX:
            self._log(f"device {'/'.join(key)} is one too many: {DEVICES_MAX} are served at most")
        elif "frontend" in found.keys:
            self._backends[key] = self._make(key, found)
            return
        self._store.unwatch(found.token)

    def _hear(self, key: Key, brought: Keys | None) -> None:
        """Several frontends change at a time when their driver domain has come back: they are followed together."""
        self._changed[key] = brought
        self._store.afterwards(self._catch_up)

    def _catch_up(self) -> None:
        """Who waits for us comes first: until all are attached, or no longer than we linger, we ask nothing else."""
        if self._changed:
            self._look()
        if not self._rests:
            if time.monotonic() < self._until and any(map(self._is_offered, self._backends)):
                return
            self._rests = True
            self._runtime.give_back_ahead()
            self._runtime.soon(self._runtime.hypercalls.rest)
            self._store.watch("backend", self._on_change)  # fires at once: the first scan
            self._look_again()
        if self._may_have_come:
            self._may_have_come = False
            self.scan()

    def _look_again(self) -> None:
        """What the toolstack has done to devices between our first look at them and the watch."""
        paths = {key: backend.path for key, backend in self._backends.items() if backend is not None}
        for key, found in zip(paths, self._store.read_all_of([*paths.values()]), strict=True):
            backend = self._backends[key]
            if backend is None:
                continue
            if found.keys().isdisjoint((INCARNATION, CLOSED_FOR)):
                self._drop_replaced(backend.path)
                continue
            for name in backend.device.CHANGING:
                if found.get(name, "") != backend.device.keys.get(name, ""):
                    backend.device.changed(name, found.get(name, ""))

    def _look(self) -> None:
        changed, self._changed = self._changed, {}
        brought = {key: keys for key, keys in changed.items() if keys is not None}
        unread = [key for key, keys in changed.items() if keys is None]
        paths = {key: backend.frontend_path for key in unread if (backend := self._backends.get(key)) is not None}
        self._follow(brought | dict(zip(paths, self._store.read_all_of([*paths.values()]), strict=True)))

    def _follow(self, keys: dict[Key, Keys]) -> None:
        with self._saying_together():
            for key, found in keys.items():
                if (backend := self._backends.get(key)) is not None:
                    backend.follow(found)
        for key in keys:
            if (backend := self._backends.get(key)) is not None:
                backend.written()

    # ---- what backends say -------------------------------------------------------------------------------------------

    def _say(self, path: str, values: Keys) -> None:
        if self._unsaid is None:
            self._store.write_all(path, values)
        else:
            self._unsaid.append((path, values))

    @contextmanager
    def _saying_together(self) -> Iterator[None]:
        """What is said meanwhile is written at the end. A device of which it cannot be has no backend any more."""
        self._unsaid = []
        try:
            yield
        finally:
            said, self._unsaid = self._unsaid, None
        for (path, _), error in zip(said, self._store.write_several(said), strict=True):
            if error is not None:
                self._give_up(path, error)

    def _give_up(self, path: str, error: HypercallError) -> None:
        for key, backend in self._backends.items():
            if backend is not None and backend.path == path:
                self._log(f"device {'/'.join(key)}: {error}")
                self._backends[key] = None
                backend.close()
                with suppress(HypercallError):  # it may stand there as connected
                    self._store.write(f"{path}/state", int(XenbusState.CLOSED))
                return

    def _make(self, key: Key, found: Found) -> XenbusBackend | None:
        kind, domid, devid = key
        try:
            return XenbusBackend(self._runtime, kind, DomId(int(domid)), found, say=self._say, log=self._log)
        except (HvdError, ValueError) as error:
            self._log(f"device {kind} {devid} of domain {domid}: {error}")
            self._store.unwatch(found.token)
            return None


def _media_of(keys: list[Key]) -> list[Asked]:
    """Of devices that make sense: what is wrong with another says whoever makes its backend."""
    numbered = [key for key in keys if key[1].isdecimal() and key[2].isdecimal()]
    return [(DomId(int(domid)), kind, int(devid)) for kind, domid, devid in numbered if _has_medium(kind)]


def _has_medium(kind: str) -> bool:
    try:
        return find_driver(kind).has_medium
    except LocalError:
        return False
