"""The device handshake: both ends watch each other's `state` in XenStore and follow one table each.

To the states of xenbus.h hvd adds what Xen lacks, liveness. The broker removes the `state` node of a dead end, behind
the fence. A new backend incarnation writes its number to `hvd-incarnation` with InitWait; the frontend publishes its
(re-initialised) ring for exactly that number in `hvd-backend-incarnation`, under a session of its own in
`hvd-session`. So neither end can take an old state for a new one, however events are merged.

A backend that closed a device says why in `error`, and in `hvd-closed-for` to which incarnation of the frontend. A
later one knocks: it writes its number to `hvd-incarnation`, and the backend offers the device anew.

The toolstack takes a device away by `online` 0 in the backend's directory. A frontend that can let go says Closing,
waits for InitWait, by which the backend has let go of its pages, and says Closed; one in use says why in `hvd-busy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hvd.domains.device import Backend, Frontend, Keys
from hvd.domains.drivers import find_driver
from hvd.transport.errors import HvdError, PeerFault
from hvd.transport.ids import DomId
from hvd.transport.xenbus_state import XenbusState, parse_state

if TYPE_CHECKING:
    from hvd.domains.runtime import Runtime

INCARNATION, FOR_INCARNATION, SESSION = "hvd-incarnation", "hvd-backend-incarnation", "hvd-session"
CLOSED_FOR, BUSY = "hvd-closed-for", "hvd-busy"
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
        self._backend_path = keys["backend"]
        self.device: Frontend = find_driver(kind).frontend(runtime, DomId(int(keys["backend-id"])), keys)
        self.device.on_fault = self.fault
        self.state = XenbusState.INITIALISING
        self._published_for: int | None = None
        self._sessions = 0
        self.connected = False
        self.error = ""
        self.gone = False
        """It was taken away."""
        self.on_change: Callable[[XenbusFrontend], None] = _ignore
        """Called when the device is connected for the first time, and when it has gone."""
        self._announced = False
        self._token = self._store.watch(f"{self._backend_path}/state", lambda _: self._look())

    def _look(self) -> None:
        """Follow the backend's state."""
        keys = read_keys(self._runtime, self._backend_path)
        if self._leaves(keys):
            return
        backend, incarnation = parse_state(keys.get("state")), _number(keys.get(INCARNATION))
        current = incarnation == self._published_for
        ours = str(self._runtime.incarnation)
        if self.connected and not (current and backend is XenbusState.CONNECTED):
            self.connected = False
            self.device.backend_gone()
        match backend:
            case XenbusState.INIT_WAIT if not current and incarnation >= 0:
                self._publish(incarnation, keys)
            case XenbusState.CONNECTED if current and not self.connected and self.state is not XenbusState.CLOSED:
                self._connect(keys)
            case XenbusState.CLOSED if self._published_for is None and keys.get(CLOSED_FOR) != ours:
                self._knock()
            case XenbusState.CLOSING | XenbusState.CLOSED:
                self.error = keys.get("error") or "the backend closed the device"
                self._published_for = None
                self._switch(XenbusState.CLOSED)

    def _leaves(self, keys: Keys) -> bool:
        """Whether the device is taken away, and this was a step of that."""
        if not keys and not read_keys(self._runtime, self.path):
            self._end()
            return True
        if keys.get("online") != "0":
            return False
        if self.state is not XenbusState.CLOSING and (reason := self.device.in_use()):
            self._store.write(f"{self.path}/{BUSY}", reason[:ERROR_MAX])
            return False
        if self.state is not XenbusState.CLOSING:
            self._switch(XenbusState.CLOSING)
            if self._published_for is not None:
                return True  # it may have our pages
        elif parse_state(keys.get("state")) is XenbusState.CLOSING:
            return True
        self._end()
        self._store.write(f"{self.path}/state", int(XenbusState.CLOSED))
        return True

    def _end(self) -> None:
        """Nothing of the device is left but what its user asks of it, which fails."""
        self._store.unwatch(self._token)
        self.connected, self.gone = False, True
        self.device.close()
        self.on_change(self)

    def _knock(self) -> None:
        """The device was closed to an older incarnation of ours, or before there was any."""
        state = str(int(XenbusState.INITIALISING))
        self._store.write_all(self.path, {INCARNATION: str(self._runtime.incarnation), "state": state})

    def _connect(self, untrusted_keys: Keys) -> None:
        self.error = ""
        self.connected = True
        try:
            self.device.connected(untrusted_keys)  # requests flow first: the state is for whoever looks
        except (PeerFault, ValueError, KeyError) as error:
            self.fault(PeerFault(_blame(error)))
            return
        self._switch(XenbusState.CONNECTED)
        if not self._announced:
            self._announced = True
            self.on_change(self)

    def _publish(self, incarnation: int, backend_keys: Keys) -> None:
        keys = self.device.publish(backend_keys)
        self._published_for = incarnation
        self._sessions += 1
        keys |= {FOR_INCARNATION: str(incarnation), SESSION: f"{self._runtime.incarnation}.{self._sessions}"}

        # One multicall is as atomic as a transaction: the broker carries it out whole before anybody else's hypercall.
        self._store.write_all(self.path, keys | {"state": str(int(XenbusState.INITIALISED))})
        self.state = XenbusState.INITIALISED

    def fault(self, error: PeerFault) -> None:
        """The backend broke the protocol: nothing more is asked of this incarnation of it."""
        self.error = f"{self.kind} {self.devid}: {error}"
        if self.connected:
            self.connected = False
            self.device.backend_gone()
        self._store.write(f"{self.path}/error", self.error[:ERROR_MAX])
        self._switch(XenbusState.CLOSED)

    def _switch(self, state: XenbusState) -> None:
        if state is not self.state:
            self._store.write(f"{self.path}/state", int(state))
            self.state = state


class XenbusBackend:
    """Drives one backend."""

    def __init__(
        self, runtime: Runtime, kind: str, frontend: DomId, devid: str, *, keys: Keys, log: Callable[[str], None]
    ) -> None:
        """`keys` are those of the backend's directory."""
        self._runtime = runtime
        self._store = runtime.store
        self._log = log
        self.label = f"{kind} {devid} of domain {frontend}"
        self.path = f"backend/{kind}/{frontend}/{devid}"
        self._frontend_path = keys.get("frontend", "")
        self.device: Backend = find_driver(kind).backend(runtime, frontend, keys)
        self.device.on_fault = self.fault
        self.state = XenbusState.INITIALISING
        self._session = ""
        self._closed_for = ""
        self._attached = False
        self._token = self._store.write_all_and_watch(
            self.path, self._offer(), f"{self._frontend_path}/state", lambda _: self._look()
        )

    def _offer(self) -> Keys:
        """What to write: a new offer, or why there is none."""
        try:
            features = self.device.features()
        except BAD_KEYS as error:
            return self._refusal(error)
        self.state = XenbusState.INIT_WAIT
        return features | {INCARNATION: str(self._runtime.incarnation), "state": str(int(self.state))}

    def _look(self) -> None:
        """Follow the frontend's state."""
        keys = read_keys(self._runtime, self._frontend_path)
        frontend = parse_state(keys.get("state"))
        session = keys.get(SESSION, "")
        if self.state is XenbusState.CLOSED:
            knock = keys.get(INCARNATION, "")[:NUMBER_DIGITS]
            if frontend is XenbusState.INITIALISING and knock not in ("", self._closed_for):
                self._closed_for = knock
                self._store.write_all(self.path, self._offer())
            return
        gone = session != self._session or frontend not in PUBLISHED
        if frontend is XenbusState.CLOSING or (self._attached and gone):
            self._detach()
            self._wait_again()
        for_us = keys.get(FOR_INCARNATION) == str(self._runtime.incarnation)
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
            self._store.write_all(self.path, self.device.attach(untrusted_keys))
        except BAD_KEYS as error:
            self.fault(error)
            return
        self._switch(XenbusState.CONNECTED)

    def fault(self, error: Exception) -> None:
        """The frontend broke the protocol: this device is closed, nothing else."""
        self._detach()
        self._store.write_all(self.path, self._refusal(error))

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            self.device.detach()

    def _refusal(self, error: Exception) -> Keys:
        """What to write on closing the device."""
        text = f"{self.label}: {_blame(error)}"[:ERROR_MAX]
        self._log(text)
        self.state = XenbusState.CLOSED
        return {"error": text, CLOSED_FOR: self._closed_for, "state": str(int(self.state))}

    def _switch(self, state: XenbusState) -> None:
        if state is not self.state:
            self._store.write(f"{self.path}/state", int(state))
            self.state = state

    def close(self) -> None:
        """The device's directory is gone."""
        self._store.unwatch(self._token)
        self._detach()
        self.device.close()


def _ignore(frontend: XenbusFrontend) -> None:
    """For whoever does not want to know."""


PUBLISHED = frozenset({XenbusState.INITIALISED, XenbusState.CONNECTED})
ERROR_MAX = 1000
NUMBER_DIGITS = 19


def read_keys(runtime: Runtime, path: str) -> Keys:
    """The plain nodes of a directory (queues and other subdirectories are read by who knows them)."""
    return runtime.store.read_all(path)


def _blame(error: Exception) -> str:
    """What was wrong, for people."""
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)


def _number(text: str | None) -> int:
    """A decimal node, -1 if it is missing or no number."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS else -1
