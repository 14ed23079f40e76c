"""The first process of a domain that is a program: starts it, reaps, has its console, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from types import FrameType
from typing import Any

from hvd.domains.device import Frontend
from hvd.domains.guest import Guest, GuestShutdown
from hvd.domains.kernel import KernelError
from hvd.domains.program.interfaces import Interfaces, NoInterface
from hvd.domains.program.launch import Launch, LaunchError
from hvd.domains.program.network import Pumped
from hvd.domains.program.terminal import Terminal
from hvd.transport.protocols.net import INTERFACE_KEY, NO_INTERFACE_KEY
from hvd.transport.sandbox import LAYERS

AUTO_READY = False
STATUS_BYTES_MAX = 4096
REAPED_MAX = 64
"""In one turn: a storm of deaths does not keep init from all else."""
HANGS_UP_EVERY_S = 1.0
"""A shell that is about to read a line when it hears of it may sleep on, where a terminal that is gone would end it."""
IGNORED = re.compile(rb"^SigIgn:\t([0-9a-f]+)$", re.MULTILINE)


class ProgramEnded(KernelError):
    """A program failed, or was killed; the text says which and how."""


class Init:
    """The kernel of such a domain; `main` is called as any kernel's."""

    def __init__(self, certificate: dict[str, Any]) -> None:
        self.launch = Launch(certificate)
        self._asked = False
        self._hung_up_s: float | None = None
        """When it was sent SIGHUP: it is again and again, until it ends."""
        self._status: int | None = None

    def main(self, guest: Guest) -> None:
        """Returns when the program has ended well. ProgramEnded, LaunchError; GuestShutdown if it was asked to stop."""
        guest.wait(0)  # a spare sleeps here: the program is run by the domain
        for name, reason in self.launch.lacking.items():
            if name not in LAYERS:
                guest.log(f"{guest.name}: its program has no {name}: {reason}")
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it ends our sleep: a handler that reaps would interrupt itself
        signal.signal(signal.SIGTERM, self._on_sigterm)
        _ = guest.runtime.hypercalls.connection  # its threads are there before the program takes all there may be
        self._make_interfaces(guest)
        self.launch.run()
        terminal = Terminal(guest, self.launch.terminal)
        guest.ready()
        while self._status is None:
            guest.wait(0 if self._reap() else self._patience_s(terminal))
            terminal.pump()
            if self._hung_up_s is not None and time.monotonic() - self._hung_up_s >= HANGS_UP_EVERY_S:
                self._hang_up()
        terminal.finish()
        if self._asked:
            raise GuestShutdown
        if self._status:
            raise ProgramEnded(f"{self.launch.program} {describe(self._status)}")

    def _make_interfaces(self, guest: Guest) -> None:
        """Of what it has now; those that come later are made when they are connected."""
        interfaces = self.launch.interfaces
        if interfaces is None:
            return
        plugging = Plugging(guest, interfaces)
        try:
            for device in guest.devices():
                if isinstance(device, Pumped):
                    interfaces.give(device)
        except NoInterface as error:
            raise LaunchError(f"{self.launch.program} cannot be run: {error}") from None
        guest.on_device(plugging.changed)

    def _reap(self) -> bool:
        """Whoever has lost his parent is ours to reap, beside the program; whether there may be more."""
        for _ in range(REAPED_MAX):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return False
            if pid == self.launch.pid:
                self._status = os.waitstatus_to_exitcode(status)
        return True

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """The toolstack asks the domain to stop: whoever ignores that, as a shell does, has its terminal hung up.

        It has as long as the toolstack gives it; then the domain is killed.
        """
        self._asked = True
        if self._status is None:
            self._signal(signal.SIGCONT)  # it may be stopped
            if self._ignores(signal.SIGTERM):
                self._hang_up()
            else:
                self._signal(signal.SIGTERM)

    def _hang_up(self) -> None:
        self._hung_up_s = time.monotonic()
        self._signal(signal.SIGHUP)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ends just now
            os.kill(self.launch.pid, number)

    def _patience_s(self, terminal: Terminal) -> float | None:
        """How long a wait may last before there is something to do; None: until something happens."""
        patience_s = terminal.patience_s()
        if self._hung_up_s is None:
            return patience_s
        return HANGS_UP_EVERY_S if patience_s is None else min(patience_s, HANGS_UP_EVERY_S)

    def _ignores(self, number: int) -> bool:
        if self.launch.status < 0:
            return False
        try:
            ignored = IGNORED.search(os.pread(self.launch.status, STATUS_BYTES_MAX, 0))
        except ProcessLookupError:  # it ends just now
            return False
        return ignored is not None and bool(int(ignored[1], 16) >> (number - 1) & 1)


class Plugging:
    """Interfaces that come and go with devices of a program that runs. Whoever plugs one in reads what came of it."""

    def __init__(self, guest: Guest, interfaces: Interfaces) -> None:
        self._guest = guest
        self._interfaces = interfaces

    def changed(self, device: Frontend, here: bool) -> None:
        """One was connected for the first time, or has gone."""
        if not isinstance(device, Pumped):
            return
        if not here:
            self._interfaces.take(device)
        elif not self._interfaces.has(device):
            self._give(device)

    def _give(self, device: Pumped) -> None:
        *_, kind, _, devid = device.keys["backend"].split("/")
        try:
            key, told = INTERFACE_KEY, self._interfaces.give(device)
            text = f"its {kind} {devid} is {told}"
        except NoInterface as error:
            key, told = NO_INTERFACE_KEY, str(error)
            text = f"its {kind} {devid} is no interface: {told}"
        self._guest.runtime.store.write(f"device/{kind}/{devid}/{key}", told)
        self._guest.log(f"{self._guest.name}: {text}")


def describe(code: int) -> str:
    """How a program ended, from its exit code or, negative, the signal that killed it."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
