"""The process that is to be the program: forked while its domain may still make namespaces, held until it may run.

The domain's first process, init, goes on into the sandbox of any guest, and so can neither fork nor run anything.
This one builds a sandbox of its own beside that (`confinement.py`), tells init over a socket how that went, with a
terminal's master side, its own /proc/PID/status and what reaches into its network (`interfaces.py`), and waits for the
word to run the program.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import termios
from typing import Any, NoReturn

from hvd.domains.kernel import KernelError
from hvd.domains.program.confinement import Confinement
from hvd.domains.program.interfaces import Interfaces
from hvd.domains.sandbox.sandbox import Sandbox
from hvd.transport.descriptors import receive_message, send_message, socket_pair

APART, CONFINED, FAILED, RUN = "apart", "confined", "failed", "run"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "LANG": "C.UTF-8",
    "TERM": "vt220",
}  # fmt: skip
"""What a login on a console has. vt220 is what Debian's getty says of a console whose terminal it does not know."""
NO_SUCH_COMMAND = 127
PATIENCE_S = 30.0
"""How long a step of the process that is to run the program may take."""


class LaunchError(KernelError):
    """The program could not be run; the text says which and why."""


class Launch:
    """One program's launch, in init."""

    def __init__(self, certificate: dict[str, Any]) -> None:
        self._certificate = certificate
        self.program: str = certificate["kernel"]
        self.pid = -1
        self.terminal = -1
        """The master side of its console."""
        self.status = -1
        """Its /proc/PID/status, which stays readable when it runs the program; -1 where there is no /proc."""
        self.lacking: dict[str, str] = {}
        """What its own sandbox does without, with the reasons."""
        self.interfaces: Interfaces | None = None
        """Of the program's network namespace; None before `hold`, and if that failed."""
        self._failure = ""

    def fork(self, sandbox: Sandbox) -> None:
        """Called by a sandbox that knows whose it is, and has put on nothing that a child could not."""
        self._link, theirs = socket_pair()
        self._link.settimeout(PATIENCE_S)
        theirs.setblocking(True)
        self.pid = os.fork()
        if self.pid == 0:
            self._link.detach()
            _be_the_program(self._certificate, sandbox, theirs)
        theirs.close()
        self._hear()  # whoever changes his root changes that of all in his mount namespace

    def hold(self) -> dict[str, str]:
        """Wait until its sandbox is on: what that does without. If it failed, `run` says so."""
        match self._hear():
            case ([verb, dict() as lacking, bool() as with_status, str() as no_taps], [terminal, netlink, *others]
                  ) if verb == CONFINED:  # fmt: skip
                self.lacking, self.terminal = lacking, terminal
                self.status = others.pop(0) if with_status else -1
                self.interfaces = Interfaces(socket.socket(fileno=netlink), others, no_taps)
            case None:
                self._failure = self._failure or "whoever was to run it has died"
            case message, _:
                self._failure = str(message[1])
        return self.lacking

    def run(self) -> None:
        """Let it run the program; returns when it does. LaunchError if it cannot."""
        if not self._failure:
            with contextlib.suppress(BrokenPipeError):  # it is dead, and we shall hear of it
                send_message(self._link, [RUN])
            received = self._hear()
            self._failure = self._failure if received is None else str(received[0][1])
        self._link.close()
        if self._failure:
            raise LaunchError(f"{self.program} cannot be run: {self._failure}")

    def _hear(self) -> tuple[list[Any], list[int]] | None:
        """What the other end says next; None when it has closed, as it does by running the program, or hangs."""
        try:
            return receive_message(self._link)
        except TimeoutError:
            self._failure = f"whoever was to run it has been silent for {PATIENCE_S:g} s"
            return None


def _be_the_program(certificate: dict[str, Any], sandbox: Sandbox, link: socket.socket) -> NoReturn:
    """The new process, from fork to exec or death."""
    try:
        _keep_only(link.fileno(), *sandbox.descriptors)
        confinement = Confinement(certificate, sandbox)
        confinement.leave_mounts()
        send_message(link, [APART])
        terminal, slave, status = confinement.put_on()
        told = tuple(each for each in (terminal, confinement.netlink, status, *confinement.taps) if each >= 0)
        send_message(link, [CONFINED, confinement.lacking, status >= 0, confinement.no_taps], told)
        for descriptor in told:
            os.close(descriptor)
        if receive_message(link) is not None:
            _take_terminal(slave)
            _forget_signals()
            _keep_only(link.fileno())
            kernel: str = certificate["kernel"]
            os.execve(kernel, [kernel, *certificate["args"]], ENVIRONMENT)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        with contextlib.suppress(OSError):
            send_message(link, [FAILED, f"{named}{error.strerror}"])
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into init
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(NO_SUCH_COMMAND)


def _keep_only(*descriptors: int) -> None:
    """These and the standard ones."""
    low = 3
    for descriptor in sorted(descriptors):
        os.closerange(low, descriptor)
        low = max(low, descriptor + 1)
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _take_terminal(slave: int) -> None:
    """Lead a session whose terminal it is, with nothing of init's."""
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for standard in (0, 1, 2):
        os.dup2(slave, standard)


def _forget_signals() -> None:
    """As the kernel starts a program: nothing ignored, nothing handled, nothing blocked."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # those that libc keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
