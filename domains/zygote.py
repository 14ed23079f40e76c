"""The zygote: a warm image that domains are forked from, as children of the machine; nothing of theirs is in it."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from typing import Any

from hvd.domains import birth
from hvd.domains.birth_pages import BirthPages
from hvd.domains.drivers import SHIPPED as DRIVERS
from hvd.domains.kernel import SHIPPED as KERNELS
from hvd.domains.mounts import KeptMounts
from hvd.domains.sandbox import seccomp, view
from hvd.domains.sandbox.namespaces import FLAGS, Namespaces
from hvd.domains.sandbox.syscalls import CONSOLES, POLICIES
from hvd.domains.standby import Standby, fork_standby
from hvd.transport.cgroups import DomainGroups
from hvd.transport.descriptors import receive_message, send_message
from hvd.transport.machine_link import LOST, SPAWN, SPAWNED
from hvd.transport.pulse import BEAT_EVERY_S, Pulse
from hvd.transport.sandbox import Kind

FIRST = KERNELS["hvd:dom0"]
FIRST_CALLS = CONSOLES[Kind.DRIVER]
"""What domain 0 runs, and what it may ask the kernel for: the whole machine waits for it."""
REST = (*KERNELS.values(), *DRIVERS.values(), "hvd.domains.program.init", "importlib.metadata")
"""Everything else that domains load: it is in the image because a birth that imports takes milliseconds longer."""
STANDBYS = 2
"""Processes that wait to become a domain: one that was just taken, and one more while another is made."""
QUIET_MS = 25
"""How long nobody must have asked for anything before one is made: whoever was just born has the CPUs first."""


def run_zygote(link: socket.socket, groups: list[DomainGroups], pulse: Pulse, everywhere: set[int]) -> None:
    """Answer the machine until it closes the link; `groups` are where its domains are to be.

    `everywhere`: the CPUs of a domain that does not say on which it is to run.
    """
    pulse.beat()
    seccomp.compile_filters([FIRST_CALLS])
    view.interpreter()  # looked for once, not by every domain
    _load(FIRST)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited: a domain takes it when it can handle it
    Zygote(link, groups, pulse, everywhere).run()


class Zygote:
    """The processes that stand by, and who is asked for them."""

    def __init__(
        self, link: socket.socket, groups: list[DomainGroups], pulse: Pulse, everywhere: set[int]
    ) -> None:
        self._everywhere = everywhere
        self._own = os.sched_getaffinity(0)
        """Where we may run."""
        self._link = link
        self._pulse = pulse
        self._complete = False
        """Whether the rest is loaded."""
        self._groups = groups
        self._standbys: deque[Standby] = deque()
        self._given: list[Standby] = []
        """Those that were somebody's before they stood by, and are to be heard yet."""
        self._wanted = STANDBYS
        """None after a fork that was refused, or one that died, until somebody asks again."""
        self._namespaces = Namespaces()
        self._mounts = KeptMounts()
        self._pages = BirthPages()
        self._poll = select.poll()

    def run(self) -> None:
        for source in (self._link, self._mounts):
            self._poll.register(source, select.POLLIN)
        while True:
            self._pulse.beat()
            timeout_ms = QUIET_MS if self._has_work() else BEAT_EVERY_S * 1000
            ready = [descriptor for descriptor, _ in self._poll.poll(timeout_ms)]
            if not ready and self._has_work():
                self._prepare()
            if self._mounts.fileno() in ready:
                self._mounts.note_deaths()
            for standby in [each for each in (*self._standbys, *self._given) if each.fileno() in ready]:
                self._hear(standby)
            if self._link.fileno() not in ready:
                continue
            received = receive_message(self._link)
            if received is None:
                return
            message, descriptors = received
            if message[0] == SPAWN:
                self._spawn(message, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _has_work(self) -> bool:
        lacks_standby = len(self._standbys) < self._wanted
        return not self._complete or self._pages.waiting or lacks_standby or self._mounts.waiting

    def _prepare(self) -> None:
        """While nobody asks: complete the image, learn from a birth, fork, then clear away what the dead have left."""
        if not self._complete:
            seccomp.compile_filters(POLICIES)
            _load(*REST)
            self._complete = True
        elif self._pages.waiting:
            self._learn()
        elif len(self._standbys) < self._wanted:
            try:
                self._standbys.append(standby := self._fork(waits=True))
                self._poll.register(standby, select.POLLIN)
            except OSError:
                self._wanted = 0
        else:
            self._mounts.close_one()

    def _learn(self) -> None:
        if self._standbys:
            self._pages.look()
        else:
            self._pages.forget()

    def _spawn(self, message: list[Any], descriptors: list[int]) -> None:
        """Make one of those that stand by a domain's; of none, a new one."""
        self._wanted = STANDBYS
        _, domid, incarnation, name, off, cpus = message
        _keep_to(self._own & {*cpus} or self._own)
        born_into = set(off) & {*FLAGS, "cgroups"}
        while self._standbys and not born_into:
            standby = self._standbys.popleft()
            self._poll.unregister(standby)
            if self._give(standby, name, descriptors, cpus):
                self._pages.follow(standby.pid)
                self._let_live(standby, domid, incarnation)
                return
            self._let_go(standby)
            send_message(self._link, [LOST, standby.pid])
        try:
            standby = self._fork(born_into, waits=False)
        except OSError as error:
            send_message(self._link, [SPAWNED, domid, incarnation, f"fork: {error.strerror}"])
            return
        self._give(standby, name, descriptors, cpus)  # dead already? then the machine finds it so
        self._let_live(standby, domid, incarnation)

    def _hear(self, standby: Standby) -> None:
        """It stands by, or it is dead: what kills those that wait kills the next as well, until somebody asks."""
        namespace = standby.hear()
        if namespace is not None:
            self._mounts.moved(standby.pid, namespace)
        if standby in self._given:
            self._given.remove(standby)
            self._poll.unregister(standby)
            self._let_go(standby)
            return
        if namespace is not None:
            return
        self._standbys.remove(standby)
        self._poll.unregister(standby)
        standby.close()
        self._wanted = 0
        send_message(self._link, [LOST, standby.pid])

    def _give(self, standby: Standby, name: str, descriptors: list[int], cpus: list[int]) -> bool:
        _keep_to({*cpus} or self._everywhere, standby.pid)
        return standby.become(name, descriptors)

    def _let_live(self, standby: Standby, domid: int, incarnation: int) -> None:
        """Behind the word to the machine: of whom that knows nothing when we die, it makes another."""
        send_message(self._link, [SPAWNED, domid, incarnation, standby.pid])
        standby.let_live()
        if standby.is_to_be_heard:
            self._given.append(standby)
            self._poll.register(standby, select.POLLIN)
        else:
            self._let_go(standby)

    def _let_go(self, standby: Standby) -> None:
        """It says nothing more."""
        standby.close()
        self._mounts.settled(standby.pid)

    def _fork(self, off: Collection[str] = (), *, waits: bool) -> Standby:
        standby = fork_standby(self._namespaces, self._groups, self._pages, birth.live, off, waits=waits)
        self._mounts.keep(standby.pid)
        return standby


def _keep_to(cpus: set[int], pid: int = 0) -> None:
    """A process, or us: whoever has us make processes has it done on its own CPUs, also the next that stands by."""
    with suppress(OSError):  # it is dead, or there is no such CPU; a domain says so itself
        os.sched_setaffinity(pid, cpus)


def _load(*targets: str) -> None:
    """Import these modules; what they are named after is `module:attribute`, or a module."""
    for target in targets:
        import_module(target.partition(":")[0])
    gc.collect()
    # Each method that a domain looks up takes a place in this cache: the name that had it is let go of, and its page is
    # written to. Emptied, it holds no names.
    sys._clear_type_cache()
    gc.freeze()  # a collection in a domain would write to every page that it shares with the others
