"""The first process of a domain that is a program: starts it, reaps, has its console, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
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
IGNORED = re.compile(rb"^SigIgn:\t([0-9a-f]+)$", re.MULTILINE)


class ProgramEnded(KernelError):
    """A program failed, or was killed; the text says which and how."""


class Init:
    """The kernel of such a domain; `main` is called as any kernel's."""

    def __init__(self, certificate: dict[str, Any]) -> None:
        self.launch = Launch(certificate)
        self._asked = False
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
            guest.wait(0 if self._reap() else terminal.patience_s())
            terminal.pump()
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
            last = signal.SIGHUP if self._ignores(signal.SIGTERM) else signal.SIGTERM
            for each in (signal.SIGCONT, last):  # it may be stopped
                with contextlib.suppress(ProcessLookupError):  # it ends just now
                    os.kill(self.launch.pid, each)

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
