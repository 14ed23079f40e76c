"""The order in which a process gives up the world: some of it before it knows whose it is, the rest when it does.

A layer that cannot be had is noted with the reason, and the others are put on all the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from hvd.domains.sandbox import identity, landlock, limits, seccomp, view
from hvd.domains.sandbox.host_mounts import HostMounts
from hvd.domains.sandbox.layered import Layered
from hvd.domains.sandbox.namespaces import OFF
from hvd.domains.sandbox.needs import Needs, legible, make_files, rules_of_own_root, without_files
from hvd.domains.sandbox.root import Root
from hvd.domains.sandbox.syscalls import CONSOLES, INIT
from hvd.transport.cgroups import DomainGroups, bound_disks
from hvd.transport.hypercalls import socket_address
from hvd.transport.ids import DOM0
from hvd.transport.run_dir import ENDPOINT
from hvd.transport.sandbox import Kind

HYPERCALLS = "/run/hvd"
"""Where a domain with a root of its own finds its endpoint, and its XenStore socket."""
XENSTORED = "/var/run/xenstored"
"""Where Xen's libraries look for that one when nobody tells them."""
HOSTS_NETWORK = "a driver domain with network works in the host's"
CORE = "a core of it is to be written by others of the same user"
NO_GROUPS = "there is none that we may change: that takes root, or systemd-run --user --scope -p Delegate=yes"
NO_ROOT = "the machine was not started by root"
ONE_USER = "in its user namespace there is one user"
RULED_OTHERWISE = (Kind.NETWORK, Kind.PROGRAM)
"""Kinds that may do more than read what they are shown."""


class Sandbox(Layered):
    """One process's. Not for a process with a second thread: capabilities and Landlock are a thread's."""

    def __init__(self, lacking: dict[str, str], groups: list[DomainGroups], *, in_user_namespace: bool) -> None:
        """`lacking`: the namespaces that it was not born into, each with the reason."""
        self.lacking = dict(lacking)
        self._groups = groups
        self._in_user_namespace = in_user_namespace
        self._bounds: list[tuple[str, int]] = []
        """Controllers and open files that our control groups are bounded by."""
        self._ruleset: landlock.Ruleset | None = None
        """What any guest or driver domain may do in the root that we have moved into."""
        self._is_legible = False
        """Whether our uid can read what every domain is shown in the root that we have moved into."""

    def begin(self, *, waits: bool = False) -> None:
        """Put on all that needs no identity. `waits`: so that as little as can be is left, which takes longer.

        Of the layers that come later, which whoever has time makes ready, it is in none yet: it may be anybody's.
        """
        self._pid = int(os.readlink("/proc/self"))  # on the host; in its own namespace it is the first
        if not self._groups:
            self.lacking["cgroups"] = NO_GROUPS
        self._try("cgroups", self._enter_groups)
        self._used_bytes = limits.private_bytes()
        self._root: Root | None = None
        self.person = identity.Person(os.geteuid(), -1)
        if os.geteuid() != 0 or self._in_user_namespace:
            self.lacking["uid"] = NO_ROOT if os.geteuid() != 0 else ONE_USER
        else:
            self.person = identity.new_person(self._pid)
        if "mount" in self.lacking:
            self.lacking["root"] = "it takes a mount namespace, and there is none"
        else:
            self._try("root", lambda: self._begin_root(waits=waits))
        if self.mounts >= 0:
            self._make_ready()

    def _make_ready(self) -> None:
        """In the root that we have moved into. What is refused here is tried again, and told of, when it is put on."""
        with contextlib.suppress(OSError):
            if "uid" not in self.lacking:
                identity.check_access(self.person.uid, legible())
            self._is_legible = True
        with contextlib.suppress(OSError):
            self._ruleset = landlock.Ruleset(rules_of_own_root(landlock.READ), tcp=False)

    @property
    def hides_proc(self) -> bool:
        """Whether a root is under construction where the host's /proc is."""
        return self._root is not None and self._root.host is None

    @property
    def mounts(self) -> int:
        """A descriptor of the mount namespace that it has left its first one for; -1: it has not."""
        return self._root.host.namespace if self._root is not None and self._root.host is not None else -1

    @property
    def descriptors(self) -> list[int]:
        """Those that it needs until it is on."""
        owners = [self.person.owners] if self.person.owners >= 0 else []
        return owners if self._root is None else [*owners, *self._root.descriptors]

    def show_host(self) -> None:
        """In a child that puts on another sandbox: the host's files, if ours are out of their sight already."""
        if self._root is not None and self._root.host is not None:
            self._abandon_root()

    def enter(self, certificate: dict[str, Any], fork_program: Callable[[Sandbox], None] | None = None) -> str:
        """All the rest, for the domain of this birth certificate; the address of its endpoint from here on.

        `fork_program`: a process beside ours runs programs, we do not; it is forked when it can still put on a
        sandbox of its own.
        """
        settings = certificate["sandbox"]
        kind = Kind(settings["kind"])
        for name in settings["off"]:
            self.lacking[name] = HOSTS_NETWORK if (kind, name) == (Kind.NETWORK, "network") else OFF
        self._try("cgroups", lambda: self._bound_groups(kind, settings["memory_kib"]))
        self._close_bounds()
        with nullcontext() if self._root is None else self._root.seeing_host():
            self._try("cgroups", lambda: self._join_others(kind, settings["memory_kib"], settings["io_bps"]))
            needs = Needs(certificate, kind)
            make_files(needs.writable)
            own = needs if fork_program is None else Needs(without_files(certificate), Kind.GUEST)
            self._try("root", lambda: self._fetch(own))
        scopes, calls = landlock.SCOPES, str(kind)
        if certificate["domid"] == DOM0:
            calls = CONSOLES.get(kind, calls)
        if fork_program is not None:
            fork_program(self)
            kind, needs, calls = Kind.GUEST, own, INIT
            scopes = landlock.ABSTRACT_SOCKETS  # it is to signal its program, which is not in its Landlock domain
        address = self._enter_root(needs)
        if "uts" not in self.lacking:
            socket.sethostname(certificate["name"])
        if certificate["traceable"] and "root" in self.lacking and not identity.may_trace_others():
            self.lacking.setdefault("uid", CORE)  # where there is a root, its files are that uid's already
        self._try("uid", lambda: identity.take_uid(self.person.uid, self._unchecked(needs)))
        own_user = not {"user", "uid"} <= self.lacking.keys()
        self._try("limits", lambda: limits.apply(
            kind, memory_kib=settings["memory_kib"], maxmem_kib=settings["maxmem_kib"],
            used_bytes=self._used_bytes, own_user=own_user))
        if "root" in self.lacking:
            self.lacking.setdefault("opaque", "its endpoint is reached through /proc, which shuts out who is opaque")
        if certificate["traceable"] and "uid" in self.lacking:
            self.lacking.setdefault("opaque", CORE)
        identity.be_opaque(opaque="opaque" not in self.lacking)
        self._try("capabilities", identity.give_up_privileges)
        self._try("no-new-privs", identity.gain_no_privileges)
        self._try("landlock", lambda: self._restrict(needs, kind, scopes))
        self._drop_ruleset()
        self._try("seccomp", lambda: seccomp.install(seccomp.compiled(calls, settings["seccomp"])))
        return address

    def _enter_groups(self) -> None:
        for group in self._groups:
            if not group.shares_cpus:
                group.enter(self._pid)
                self._bounds += group.open_bounds(self._pid).items()

    def _bound_groups(self, kind: Kind, memory_kib: int) -> None:
        bounds = limits.of_all_processes(kind, memory_kib=memory_kib)
        for controller, descriptor in self._bounds:
            os.write(descriptor, str(bounds[controller]).encode())

    def _close_bounds(self) -> None:
        while self._bounds:
            os.close(self._bounds.pop()[1])

    def _join_others(self, kind: Kind, memory_kib: int, io_bps: int) -> None:
        """A hierarchy that shares out CPU time may have other controllers beside it: who is not in it lacks those."""
        for group in self._groups:
            if group.shares_cpus:
                if kind is Kind.PROGRAM:
                    group.enter(self._pid)
                group.bound(self._pid, limits.of_all_processes(kind, memory_kib=memory_kib))
        if io_bps:
            bound_disks(self._groups, self._pid, io_bps)

    def _begin_root(self, *, waits: bool) -> None:
        host = None
        if waits:
            with contextlib.suppress(OSError):  # there are as many namespaces as there may be: it does with one
                host = HostMounts()
        try:
            self._root = Root(self.person.owners, host)
        except OSError:
            if host is not None:
                host.go_back()
            raise
        try:
            for path in view.interpreter():
                self._root.give(path)
            for path in view.SYSTEM:
                self._root.give_system(path)
            for path in view.DEVICES:
                self._root.give_device(path)
            self._root.link(XENSTORED, HYPERCALLS)
            self._root.make_directory(HYPERCALLS)
            if host is not None:
                self._root.move_in()
        except OSError:
            self._abandon_root()
            raise

    def _enter_root(self, needs: Needs) -> str:
        """The address of the endpoint, in a root of our own or in the host's."""
        if self._root is not None and "root" not in self.lacking:
            self._try("root", lambda: self._finish_root(needs))
        self._abandon_root()
        if self.person.owners >= 0:
            os.close(self.person.owners)
        if "root" not in self.lacking:
            return f"ipc://{HYPERCALLS}/{ENDPOINT}"
        return socket_address(os.open(needs.endpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), ENDPOINT)

    def _fetch(self, needs: Needs) -> None:
        if self._root is not None:
            for path in (*needs.readable, *needs.writable):
                self._root.fetch(path)
            self._root.fetch(HYPERCALLS, needs.endpoint)

    def _finish_root(self, needs: Needs) -> None:
        assert self._root is not None
        for path in needs.commands:
            self._root.give_system(path)
        for path in needs.readable:
            self._root.give(path)
        if needs.terminals:
            self._root.give_terminals()
        self._root.hide(needs.run_dir)
        for path in needs.writable:
            self._root.give(path, writable=True)
        self._root.give(HYPERCALLS)
        self._root.enter()
        self._root = None

    def _abandon_root(self) -> None:
        if self._root is not None:
            self._root.abandon()
            self._root = None

    def _unchecked(self, needs: Needs) -> list[tuple[str, int]]:
        """What it is not known of yet whether our uid can use it."""
        return needs.given if self._is_legible and "root" not in self.lacking else [*needs.given, *legible()]

    def _restrict(self, needs: Needs, kind: Kind, scopes: int) -> None:
        if "root" in self.lacking or kind in RULED_OTHERWISE or scopes != landlock.SCOPES:
            self._drop_ruleset()
        if self._ruleset is None:
            self._ruleset = landlock.Ruleset(self._rules(needs, kind), tcp=kind is Kind.NETWORK, scopes=scopes)
        else:
            self._ruleset.allow(needs.rules)
        self._ruleset.restrict()

    def _drop_ruleset(self) -> None:
        if self._ruleset is not None:
            self._ruleset.close()
            self._ruleset = None

    def _rules(self, needs: Needs, kind: Kind) -> list[tuple[str, int]]:
        read = landlock.READ | (landlock.EXECUTE if kind is Kind.PROGRAM else 0)
        if "root" not in self.lacking:
            return [*rules_of_own_root(read), *needs.rules]
        shown = [*view.interpreter(), *view.SYSTEM, *needs.commands, *needs.readable]
        rules = [(path, read) for path in shown] + [(path, landlock.DEVICE) for path in view.DEVICES]
        return [*rules, *needs.rules]
