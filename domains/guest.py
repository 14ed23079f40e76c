"""A guest as its author sees it: the object given to `main(guest)`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from hvd.domains.console.frontend import ConsoleFrontend
from hvd.domains.console.line_discipline import to_terminal
from hvd.domains.console.streams import OURS
from hvd.domains.device import Frontend
from hvd.domains.driver_domain import DriverDomain
from hvd.domains.runtime import Runtime
from hvd.domains.service import Service
from hvd.domains.xenbus import XenbusFrontend
from hvd.transport import messages as m
from hvd.transport.errors import HvdError, LocalError

CONNECT_TIMEOUT_S = 30.0
LOG_LINE_CHARACTERS_MAX = 1000
"""As many as fit into a hypercall's text whatever they are."""
DRAIN_S = 1.0
SHUTDOWN_REASONS = {"poweroff": 0, "halt": 0, "reboot": 1}


def sendable(text: str) -> str:
    """A guest's text as a hypercall takes it: what is no character, and NUL, is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class GuestShutdown(BaseException):
    """The toolstack asks this domain to stop. Raised in the guest's program, which may clean up and must not go on."""


class DeviceUnavailable(HvdError):
    """A device the guest was given did not connect; the text is the backend's."""


class Guest:
    """What a guest's program has of the world: its identity, its devices, its console, time, and shutdown.

    `main(guest)` is called when every device has connected and the domain counts as ready (unless the kernel says
    `AUTO_READY = False` and calls `ready()` itself). When it returns the domain powers off; an exception is a crash.
    """

    def __init__(self, runtime: Runtime) -> None:
        """From here on the process's standard streams are the domain's console."""
        self.runtime = runtime
        self.console = ConsoleFrontend(runtime)
        self._streams = OURS
        self._streams.install(self.console)
        os.register_at_fork(after_in_child=self.console.disown)
        self.domid = runtime.domid
        self.name = runtime.name
        self.incarnation = runtime.incarnation
        self.args = runtime.args
        self._frontends: dict[tuple[str, str], XenbusFrontend] = {}
        self._on_device: Callable[[Frontend, bool], None] | None = None
        self._on_shrink: Callable[[int], None] | None = None
        self._services: dict[str, Service] = {}
        self._driver_domain: DriverDomain | None = None
        self._is_ready = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    # ---- devices -----------------------------------------------------------------------------------------------------

    def device(self, kind: str, devid: str | int | None = None) -> Any:
        """The frontend of a device: of that id, or the only one of its kind. LocalError if there is none."""
        matching = [f for (k, d), f in self._frontends.items() if k == kind and (devid is None or d == str(devid))]
        if len(matching) != 1:
            have = ", ".join(f"{k}/{d}" for k, d in self._frontends) or "none"
            wanted = f"{kind}/{'*' if devid is None else devid}"
            raise LocalError(f"domain {self.name} has {len(matching)} devices {wanted}; it has: {have}")
        return matching[0].device

    def disk(self, name: str | None = None) -> Any:
        """A block frontend by its name (`xvda`), or the only disk, as in `disks`."""
        for known, disk in self.disks().items():
            if name in (None, known):
                return disk
        raise LocalError(f"domain {self.name} has no disk {name or ''}")

    def disks(self) -> dict[str, Any]:
        """Every block frontend by its name. One that is plugged in is among them as soon as it has connected."""
        known = [frontend for (kind, _), frontend in self._frontends.items() if kind == "vbd" and frontend.announced]
        return {frontend.device.name: frontend.device for frontend in known}  # type: ignore[attr-defined]

    def on_device(self, handler: Callable[[Frontend, bool], None]) -> None:
        """Call `handler(device, here)` from `wait` when a device was plugged in and connected, and when one has gone.

        The handler does not wait itself: what came with the event that it is called for would be heard late.

        What is asked of one that has gone fails: with OSError ENODEV, if it is a disk.
        """
        self._on_device = handler

    def devices(self) -> list[Frontend]:
        """Every frontend there is."""
        return [frontend.device for frontend in self._frontends.values()]

    def serve_backends(self) -> DriverDomain:
        """Be a driver domain too: serve whatever devices the toolstack puts under `backend`."""
        self._driver_domain = DriverDomain(self.runtime, self.log)
        return self._driver_domain

    def service(self, name: str) -> Service:
        """A named service: whoever is active of the domains that name it in their configuration, maybe ourselves."""
        if name not in self._services:
            self._services[name] = Service(self.runtime, name)
        return self._services[name]

    # ---- memory ------------------------------------------------------------------------------------------------------

    def on_shrink(self, handler: Callable[[int], None]) -> None:
        """Call `handler(kib)` from `wait` when it is to do with less memory than before: it frees what it can spare."""
        self._on_shrink = handler

    def balloon(self) -> int:
        """Come as near to memory/target as can be, as is done when that changes; the KiB that it does with now."""
        from hvd.domains.balloon import balloon  # few guests ever do

        return balloon(self, self._on_shrink)

    # ---- life --------------------------------------------------------------------------------------------------------

    def run(self, main: Callable[[Any], None]) -> None:
        """Connect devices, become ready, call the kernel. Shutdown requests are heard now, earlier ones too."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self._connect_devices()
        if getattr(main, "__globals__", {}).get("AUTO_READY", True):
            self.ready()
        main(self)

    def ready(self) -> None:
        """Tell the hypervisor that what comes after this domain may start."""
        if not self._is_ready:
            self._is_ready = True
            self.runtime.hypercalls.ready()
            if self._driver_domain is None:
                self.runtime.give_back_ahead()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until something happens to this domain; False on timeout."""
        return self.runtime.wait(timeout_s)

    def sleep(self, seconds: float) -> None:
        """Let so much system time pass while the domain's drivers go on; `wait` returns at whatever happens first."""
        until = self.runtime.system_time_ns() + int(seconds * 1e9)
        while (left := until - self.runtime.system_time_ns()) > 0:
            self.runtime.wait(left / 1e9)

    def run_forever(self) -> None:
        """Serve until told to stop."""
        while True:
            self.runtime.wait()

    def log(self, text: str) -> None:
        """A line on the hypervisor's console (`hvd dmesg`)."""
        self.runtime.hypercalls.call(m.ConsoleIo(sendable(text)[:LOG_LINE_CHARACTERS_MAX]))

    def write_console(self, text: str) -> None:
        """Text on the domain's console, whatever the program has made of sys.stdout."""
        self.console.write(to_terminal(text.encode("utf-8", "backslashreplace")))

    def requested_reason(self) -> int:
        """The SHUTDOWN_* number of what the toolstack wrote to control/shutdown."""
        return SHUTDOWN_REASONS.get(self.runtime.store.read_text("control/shutdown"), 0)

    def close(self, reason: int, text: str, last_words: str) -> None:
        """The end of this incarnation; does not come back. What it printed last has a moment to be taken."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._streams.flush()
        self.write_console(last_words)
        if not self.console.drain(DRAIN_S):
            self.console.write_down()
        self.runtime.shutdown(reason, text)

    def _connect_devices(self) -> None:
        self.runtime.store.on_toolstack(self._heard_toolstack)
        for kind, devid in self.runtime.devices:
            self._add_device(kind, devid)
        for frontend in list(self._frontends.values()):
            self.runtime.wait_until(lambda f=frontend: f.connected or f.gone or bool(f.error),  # type: ignore[misc]
                                    f"connecting {frontend.kind}/{frontend.devid}", CONNECT_TIMEOUT_S)
            if frontend.error:
                raise DeviceUnavailable(frontend.error)

    def _add_device(self, kind: str, devid: str) -> None:
        frontend = XenbusFrontend(self.runtime, kind, devid)
        frontend.on_change = self._device_changed
        self._frontends[kind, devid] = frontend

    def _heard_toolstack(self, path: str) -> None:
        """Of one that was not told what it is about because too much happened: everything."""
        about = path.partition("/")[0]
        if about in ("device", ""):
            self._look_for_devices(path)
        if about in ("control", ""):
            from hvd.domains import sysrq  # few guests ever hear of it

            sysrq.heard(self)
        if about in ("memory", ""):
            self.balloon()

    def _look_for_devices(self, path: str) -> None:
        """The toolstack has plugged something in: there, or where it was not told.

        A device that makes no sense is told to the hypervisor's console, and to whoever plugged it in.
        """
        for known in list(self._frontends.values()):
            if path in ("", known.path):
                known.drop_replaced()
        store = self.runtime.store
        for kind in store.directory("device"):
            for devid in store.directory(f"device/{kind}"):
                if (kind, devid) not in self._frontends:
                    try:
                        self._add_device(kind, devid)
                    except (HvdError, KeyError, ValueError) as error:
                        self._refuse_device(kind, devid, str(error))

    def _refuse_device(self, kind: str, devid: str, reason: str) -> None:
        path = f"device/{kind}/{devid}"

        def body(tx: int) -> None:
            if self.runtime.store.read(f"{path}/backend", tx) is not None:  # it has not been taken away again
                self.runtime.store.write(f"{path}/error", reason, tx)

        self.runtime.store.transaction(body)
        self.log(f"device {kind} {devid}: {reason}")

    def _device_changed(self, frontend: XenbusFrontend) -> None:
        if frontend.gone:
            self._frontends.pop((frontend.kind, frontend.devid), None)
        if self._on_device is not None:
            self._on_device(frontend.device, not frontend.gone)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        raise GuestShutdown
