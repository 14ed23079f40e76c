"""A stop that reaches every process of a domain, and its end: what a domain has started is paused with it.

A signal to all processes of a PID namespace is sent from inside it, with one kill(-1): the kernel holds its list of
processes meanwhile, and whoever is forking then gets the signal or does not fork. Reading that list from outside would
race with a domain that forks as fast as it can. So a process of the machine's goes into the namespace, where nobody of
the domain has a right over it, and the machine waits for it no more than for a dumper.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable

from hvd.machine.children import Child
from hvd.machine.processes import fork_process
from hvd.transport._native import enter_namespace
from hvd.transport.descendants import children
from hvd.transport.process import CLONE_NEWPID, CLONE_NEWUSER
from hvd.transport.records import dataclass

ROLE = "halter"
NS_GET_USERNS = 0xB701
"""linux/nsfs.h: the user namespace that a namespace belongs to."""
TRIES_MAX = 5
"""Of one stop: its process may be killed, or find no memory."""


@dataclass(slots=True)
class Halt:
    """What one domain's processes are to be."""

    domain: Child
    stopped: bool = False
    """With its first process."""
    held: bool = False
    """While that runs on."""
    tries: int = 0
    halter: Child | None = None
    sent: int = 0
    """What the halter that runs sends."""

    @property
    def wanted(self) -> int:
        return signal.SIGSTOP if self.stopped or self.held else signal.SIGCONT


class Halts:
    """Every domain whose processes were stopped, or are being let go on."""

    def __init__(self, adopt: Callable[[Child], None]) -> None:
        """`adopt` has the machine reap a new child."""
        self._adopt = adopt
        self._halts: dict[int, Halt] = {}
        """By the pidfd of the domain's process."""

    def spread(self, domain: Child, number: int) -> None:
        """Its first process was sent SIGSTOP or SIGCONT: so are the others. Nothing where there are none.

        One that is stopped forks no more, so none are behind its back.
        """
        stopped = number == signal.SIGSTOP
        if (halt := self._halt(domain, make=stopped)) is not None:
            halt.stopped = stopped
            self._want(halt)

    def hold(self, domain: Child, *, held: bool) -> None:
        """Let none of them run while its first process does, or let them go on unless that is stopped."""
        if (halt := self._halt(domain, make=held)) is not None and halt.held != held:
            halt.held = held
            self._want(halt)

    def ended(self, halter: Child, how: str) -> None:
        """A halter was reaped: again if it failed, or something else is wanted by now."""
        halt = next((halt for halt in self._halts.values() if halt.halter is halter), None)
        if halt is None:
            return
        halt.halter = None
        failed = not how.startswith(WELL)
        if halt.wanted != halt.sent or (failed and halt.tries < TRIES_MAX):
            self._begin(halt)
        elif halt.wanted == signal.SIGCONT:
            del self._halts[halt.domain.pidfd]

    def forget(self, domain: Child) -> None:
        """It is dead, and all it had started."""
        self._halts.pop(domain.pidfd, None)

    def clear(self) -> None:
        """All are dead."""
        self._halts.clear()

    def _halt(self, domain: Child, *, make: bool) -> Halt | None:
        halt = self._halts.get(domain.pidfd)
        if halt is None and make and has_children(domain.pid):
            halt = self._halts[domain.pidfd] = Halt(domain)
        return halt

    def _want(self, halt: Halt) -> None:
        halt.tries = 0
        if halt.halter is None:
            self._begin(halt)

    def _begin(self, halt: Halt) -> None:
        halt.tries += 1
        halt.sent = halt.wanted
        with contextlib.suppress(OSError):  # no process to be had: the domain's first one is stopped all the same
            pid = fork_process(ROLE, {halt.domain.pidfd}, lambda: _signal_all(halt.domain, halt.sent))
            halt.halter = Child(ROLE, pid)
            self._adopt(halt.halter)


WELL = "exited with status 0"


def has_children(pid: int) -> bool:
    """Whether it has started a process, or might have."""
    try:
        return bool(children(pid))
    except OSError:
        return True


def _signal_all(domain: Child, number: int) -> None:
    """In the halter: a child of it, in the domain's PID namespace, sends the signal."""
    namespace = _pid_namespace(domain)
    owner = fcntl.ioctl(namespace, NS_GET_USERNS)
    with contextlib.suppress(OSError):  # root's domains are in its own user namespace, where we are
        enter_namespace(owner, CLONE_NEWUSER)
    enter_namespace(namespace, CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        # Our parent is outside, so that we cannot name it: else this would be the host's own PID namespace.
        if os.getppid() == 0:
            with contextlib.suppress(ProcessLookupError):  # all have ended
                os.kill(-1, number)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(f"the signal was not sent: wait status {status}")


def _pid_namespace(domain: Child) -> int:
    """Opened at one of the domain's children: only root may look at its first process, which is opaque."""
    for child in children(domain.pid):
        try:
            namespace = os.open(f"/proc/{child}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if child in children(domain.pid) and not domain.is_over():  # still: its number has not become another's
            return namespace
        os.close(namespace)
    raise ChildProcessError(f"none of what {domain.pid} has started lets us into its PID namespace")
