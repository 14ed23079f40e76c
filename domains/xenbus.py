"""The device handshake: both ends watch each other's `state` in XenStore and follow one table each.

To the states of xenbus.h hvd adds what Xen lacks, liveness. The broker removes the `state` node of a dead end, behind
the fence. A new backend incarnation writes its number to `hvd-incarnation` with InitWait; the frontend publishes its
(re-initialised) ring for exactly that number in `hvd-backend-incarnation`, under a session of its own in
`hvd-session`. So neither end can take an old state for a new one, however events are merged.

A backend that closed a device says why in `error`, and in `hvd-closed-for` to which incarnation of the frontend. A
later one knocks: it writes its number to `hvd-incarnation`, and the backend offers the device anew.

The toolstack takes a device away by `online` 0 in the backend's directory. A frontend that can let go says Closing,
waits for InitWait, by which the backend has let go of its pages, and says Closed; one in use says why in `hvd-busy`.
`online` 1 takes that back: a frontend that has said Closing nevertheless publishes its ring anew at InitWait.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvd.domains.device import Backend, Frontend, Keys
from hvd.domains.drivers import find_driver
from hvd.transport.errors import HvdError, PeerFault
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass
from hvd.transport.xenbus_state import XenbusState, parse_state

if TYPE_CHECKING:
    from hvd.domains.runtime import Runtime

INCARNATION, FOR_INCARNATION, SESSION = "hvd-incarnation", "hvd-backend-incarnation", "hvd-session"
CLOSED_FOR, BUSY = "hvd-closed-for", "hvd-busy"
OF_A_BREACH = (INCARNATION, "error")
"""What a frontend says of a device that was closed, until it is connected again."""
BAD_KEYS = (HvdError, OSError, ValueError, KeyError, OverflowError)
"""What making sense of a peer's keys may end in: refused calls, no memory, no numbers, numbers too large."""


class XenbusFrontend:
    """Drives one frontend."""

    def __init__(self, runtime: Runtime, kind: str, devid: str) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self.kind, self.devid = kind, devid
        self.path = f"device/{kind}/{devid}"
        keys = read_keys(runtime, self.path)
        self._given = {name: value for name, value in keys.items() if name not in ("state", *OF_A_BREACH)}
        """What its directory said when we came to know it: the toolstack's, until we have published."""
        self._backend_path = keys["backend"]
        self.device: Frontend = find_driver(kind).frontend(runtime, DomId(int(keys["backend-id"])), keys)
        self.device.on_fault = self.fault
        self.state = XenbusState.INITIALISING
        self._published_for = ""
        self._sessions = 0
        self._published = False
        """Whether the ring stands there for a backend that lives."""
        self.connected = False
        self.error = ""
        self.gone = False
        """It was taken away."""
        self.on_change: Callable[[XenbusFrontend], None] = _ignore
        """Called when the device is connected for the first time, and when it has gone."""
        self.announced = False
        """Whether it has ever been connected."""
        self._broken = not keys.keys().isdisjoint(OF_A_BREACH)
        """Nodes of ours, or of an earlier incarnation, say that the device was closed."""
        self._token = self._store.watch_keys(f"{self._backend_path}/state", self._look)

    def drop_replaced(self) -> None:
        """One that was taken away and plugged in again before we looked is another one: this one has gone."""
        found = read_keys(self._runtime, self.path)
        if self._sessions:
            replaced = found.get(SESSION) != self._session
        else:
            replaced = any(found.get(name) != value for name, value in self._given.items())
        if replaced:
            self._end()

    @property
    def _session(self) -> str:
        return f"{self._runtime.incarnation}.{self._sessions}"

    def _look(self, brought: Keys | None) -> None:
        """Follow the backend's state."""
        keys = read_keys(self._runtime, self._backend_path) if brought is None else brought
        if self._leaves(keys):
            return
        backend, offer = parse_state(keys.get("state")), _offer(keys.get(INCARNATION))
        current = bool(offer) and offer == self._published_for
        ours = str(self._runtime.incarnation)
        attached = backend is XenbusState.CONNECTED
        if (self._published and not (current and backend in SERVING)) or (self.connected and not attached):
            self._lose_backend()
        match backend:
            case XenbusState.INIT_WAIT if offer and not current:
                self._publish(offer, keys)
            case XenbusState.CONNECTED if current and not self.connected and self.state is not XenbusState.CLOSED:
                self._connect(keys)
            case XenbusState.CLOSED if not self._published_for and keys.get(CLOSED_FOR) != ours:
                self._knock()
            case XenbusState.CLOSING | XenbusState.CLOSED:
                self.error = keys.get("error") or "the backend closed the device"
                self._published_for = ""
                self._switch(XenbusState.CLOSED)

    def _leaves(self, keys: Keys) -> bool:
        """Whether the device is taken away, and this was a step of that."""
        if "frontend" not in keys and "backend" not in (left := read_keys(self._runtime, self.path)):
            if left:
                self._clear_away()
            self._end()
            return True
        if keys.get("online") != "0":
            if self.state is XenbusState.CLOSING:  # the request was taken back before its answer was there
                self._published_for = ""
            return False
        if self.state is not XenbusState.CLOSING and (reason := self.device.in_use()):
            self._store.write(f"{self.path}/{BUSY}", reason[:ERROR_MAX])
            return False
        if self.state is not XenbusState.CLOSING:
            self._switch(XenbusState.CLOSING)
            if self._published_for:
                return True  # it may have our pages
        elif parse_state(keys.get("state")) is XenbusState.CLOSING:
            return True
        self._end()
        self._store.write(f"{self.path}/state", int(XenbusState.CLOSED))
        return True

    def _clear_away(self) -> None:
        """An answer of ours, given in the moment of the removal, has made the device's directory anew."""

        def body(tx: int) -> None:
            if self._store.read(f"{self.path}/backend", tx) is None:
                self._store.remove(self.path, tx)

        self._store.transaction(body)

    def _end(self) -> None:
        """Nothing of the device is left but what its user asks of it, which fails."""
        self._store.unwatch(self._token)
        self._published, self.connected, self.gone = False, False, True
        self.device.close()
        self.on_change(self)

    def _lose_backend(self) -> None:
        self._published = self.connected = False
        self.device.backend_gone()

    def _knock(self) -> None:
        """The device was closed to an older incarnation of ours, or before there was any."""
        self._broken = True
        self.state = XenbusState.INITIALISING
        self._store.write_all(self.path, {INCARNATION: str(self._runtime.incarnation), "state": str(int(self.state))})

    def _connect(self, untrusted_keys: Keys) -> None:
        self.error = ""
        self._published = self.connected = True
        try:
            self.device.connected(untrusted_keys)  # requests flow first: the state is for whoever looks
        except (PeerFault, ValueError, KeyError) as error:
            self.fault(PeerFault(_blame(error)))
            return
        self._switch(XenbusState.CONNECTED)
        if not self.announced:
            self.announced = True
            self.on_change(self)
        if self._broken:
            self._broken = False
            for name in OF_A_BREACH:
                self._store.remove(f"{self.path}/{name}")

    def _publish(self, offer: str, backend_keys: Keys) -> None:
        keys = self.device.publish(backend_keys)
        self._published_for = offer
        self._sessions += 1

        # In this order, since many keys are more than one hypercall carries out, and a `state` may stand there from
        # before: without the session they are another device's, and without what follows it for nobody.
        state = str(int(XenbusState.INITIALISED))
        self._store.write_all(self.path, {SESSION: self._session, **keys, FOR_INCARNATION: offer, "state": state})
        self.state = XenbusState.INITIALISED
        self._published = True
        try:
            self.device.published(backend_keys)
        except (PeerFault, ValueError, KeyError) as error:
            self.fault(PeerFault(_blame(error)))

    def fault(self, error: PeerFault) -> None:
        """The backend broke the protocol: nothing more is asked of this incarnation of it."""
        self.error = f"{self.kind} {self.devid}: {error}"
        if self._published:
            self._lose_backend()
        self._broken = True
        self._store.write(f"{self.path}/error", self.error[:ERROR_MAX])
        self._switch(XenbusState.CLOSED)

    def _switch(self, state: XenbusState) -> None:
        if state is not self.state:
            self._store.write(f"{self.path}/state", int(state))
            self.state = state


@dataclass(frozen=True, slots=True)
class Found:
    """A device as the store has it, and the watch on its frontend's `state`, which is older."""

    devid: str
    keys: Keys
    frontend_path: str
    token: str


Say = Callable[[str, Keys], None]
"""Writes these nodes of a directory."""


class XenbusBackend:
    """Drives one backend."""

    def __init__(
        self, runtime: Runtime, kind: str, frontend: DomId, found: Found, *, say: Say, log: Callable[[str], None]
    ) -> None:
        """Its frontend's `state` is watched: whoever hears of it calls `follow`, and does so when it has been made.

        What it writes it gives to `say`, which may write it a little later, in order; then `written` is to be called.
        """
        self._store = runtime.store
        self._say = say
        self._log = log
        self.label = f"{kind} {found.devid} of domain {frontend}"
        self.path = f"backend/{kind}/{frontend}/{found.devid}"
        self.frontend_path = found.frontend_path
        self.device: Backend = find_driver(kind).backend(runtime, frontend, found.keys)
        self.device.on_fault = self.fault
        self.state = XenbusState.INITIALISING
        self._session = ""
        self._closed_for = ""
        self._broken = CLOSED_FOR in found.keys
        """Nodes of ours, or of an earlier incarnation, say that the device was closed."""
        self._attached = False
        self._number = str(runtime.incarnation)
        """Of the offer that stands: this incarnation's number; of what it offers in place of the first, more behind."""
        self._token = found.token
        self._offer(found.keys)

    def _offer(self, standing: Keys | None = None) -> None:
        """Say what is offered, unless that stands there already in our name.

        A spare's offer is its predecessor's, which the broker has renewed. Where ours differs, ours replaces it.
        """
        try:
            features = self.device.features()
        except BAD_KEYS as error:
            self._fail(error)
            return
        state = XenbusState.INIT_WAIT
        offered = standing or {}
        if offered.get(INCARNATION) != self._number or offered.get("state") != str(int(state)):
            self._write_offer(features)
        elif not features.items() <= offered.items():
            self._number += ".1"
            self._write_offer(features)
        self.state = state

    def _write_offer(self, features: Keys) -> None:
        ours = {INCARNATION: self._number, "state": str(int(XenbusState.INIT_WAIT))}
        self._say(self.path, features | ours)

    def follow(self, keys: Keys) -> None:
        """Follow the frontend's state: `keys` are what its directory holds now."""
        frontend = parse_state(keys.get("state"))
        session = keys.get(SESSION, "")
        if self.state is XenbusState.CLOSED:
            knock = keys.get(INCARNATION, "")[:NUMBER_DIGITS]
            if frontend is XenbusState.INITIALISING and knock not in ("", self._closed_for):
                self._closed_for = knock
                self._offer()
            return
        gone = session != self._session or frontend not in PUBLISHED
        if frontend is XenbusState.CLOSING or (self._attached and gone):
            self._detach()
            self._wait_again()
        for_us = keys.get(FOR_INCARNATION) == self._number
        if frontend is XenbusState.INITIALISED and not self._attached and for_us:
            self._attach(session, keys)

    def _wait_again(self) -> None:
        """InitWait, unless the toolstack has just removed the device: a write would make its directory anew."""

        def body(tx: int) -> None:
            if self._store.read(f"{self.path}/frontend", tx) is not None:
                self._store.write(f"{self.path}/state", int(XenbusState.INIT_WAIT), tx)

        self._store.transaction(body)
        self.state = XenbusState.INIT_WAIT

    def _attach(self, session: str, untrusted_keys: Keys) -> None:
        self._session = session
        self._closed_for = session.partition(".")[0][:NUMBER_DIGITS]
        self._attached = True
        try:
            keys = self.device.attach(untrusted_keys)
        except BAD_KEYS as error:
            self.fault(error)
            return
        self.state = XenbusState.CONNECTED
        self._say(self.path, keys | {"state": str(int(self.state))})

    def written(self) -> None:
        """What `follow` has said stands in the store."""
        if self._broken and self.state is XenbusState.CONNECTED:
            self._broken = False
            for name in ("error", CLOSED_FOR):  # in this order: by the second whoever comes next knows of the first
                self._store.remove(f"{self.path}/{name}")

    def fault(self, error: Exception) -> None:
        """The frontend broke the protocol: this device is closed, nothing else."""
        self._detach()
        self._fail(error)

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            self.device.detach()

    def _fail(self, error: Exception) -> None:
        text = f"{self.label}: {_blame(error)}"[:ERROR_MAX]
        self._log(text)
        self._broken = True
        state = XenbusState.CLOSED
        # In this order: by the first whoever comes next knows of the second.
        self._say(self.path, {CLOSED_FOR: self._closed_for, "error": text, "state": str(int(state))})
        self.state = state

    def close(self) -> None:
        """The device's directory is gone."""
        self._store.unwatch(self._token)
        self._detach()
        self.device.close()


def _ignore(frontend: XenbusFrontend) -> None:
    """For whoever does not want to know."""


SERVING = frozenset({XenbusState.INIT_WAIT, XenbusState.CONNECTED})
"""What a backend is that a ring was published for: it has yet to attach, or has."""
PUBLISHED = frozenset({XenbusState.INITIALISED, XenbusState.CONNECTED})
ERROR_MAX = 1000
NUMBER_DIGITS = 19
OFFER = re.compile(r"[0-9]{1,19}(\.1)?", re.ASCII)
"""An incarnation of a backend; its second offer."""


def read_keys(runtime: Runtime, path: str) -> Keys:
    """The plain nodes of a directory (queues and other subdirectories are read by who knows them)."""
    return runtime.store.read_all(path)


def _blame(error: Exception) -> str:
    """What was wrong, for people."""
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)


def _offer(untrusted_text: str | None) -> str:
    """What names an offer, "" if that is missing or no name."""
    return untrusted_text if untrusted_text is not None and OFFER.fullmatch(untrusted_text) else ""
