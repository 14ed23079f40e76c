"""The order in which a process gives up the world: some of it before it knows whose it is, the rest when it does.

A layer that cannot be had is noted with the reason, and the others are put on all the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from hvd.domains.sandbox import identity, landlock, limits, seccomp, view
from hvd.domains.sandbox.layered import Layered
from hvd.domains.sandbox.namespaces import OFF
from hvd.domains.sandbox.root import Root
from hvd.domains.sandbox.syscalls import CONSOLES, INIT
from hvd.transport.cgroups import DomainGroups
from hvd.transport.hypercalls import socket_address
from hvd.transport.ids import DOM0
from hvd.transport.run_dir import ENDPOINT, LOG
from hvd.transport.sandbox import Kind, split_path

HYPERCALLS = "/run/hvd"
"""Where a domain with a root of its own finds its endpoint, and its XenStore socket."""
XENSTORED = "/var/run/xenstored"
"""Where Xen's libraries look for that one when nobody tells them."""
HOSTS_NETWORK = "a driver domain with network works in the host's"
CORE = "a core of it is to be written by others of the same user"
NO_GROUPS = "there is none that we may change: that takes root, or systemd-run --user --scope -p Delegate=yes"
NO_ROOT = "the machine was not started by root"
ONE_USER = "in its user namespace there is one user"


class Sandbox(Layered):
    """One process's. Not for a process with a second thread: capabilities and Landlock are a thread's."""

    def __init__(self, lacking: dict[str, str], groups: list[DomainGroups], *, in_user_namespace: bool) -> None:
        """`lacking`: the namespaces that it was not born into, each with the reason."""
        self.lacking = dict(lacking)
        self._groups = groups
        self._in_user_namespace = in_user_namespace

    def begin(self) -> None:
        """Put on all that needs no identity."""
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
            self._try("root", self._begin_root)

    @property
    def hides_proc(self) -> bool:
        """Whether a root is under construction where the host's /proc is."""
        return self._root is not None

    @property
    def descriptors(self) -> list[int]:
        """Those that it needs until it is on."""
        return [self.person.owners] if self.person.owners >= 0 else []

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
        needs = Needs(certificate, kind)
        scopes, calls = landlock.SCOPES, str(kind)
        if certificate["domid"] == DOM0:
            calls = CONSOLES.get(kind, calls)
        if fork_program is not None:
            _make_files(needs.writable)
            fork_program(self)
            kind, needs, calls = Kind.GUEST, Needs(_without_files(certificate), Kind.GUEST), INIT
            scopes = landlock.ABSTRACT_SOCKETS  # it is to signal its program, which is not in its Landlock domain
        _make_files(needs.writable)
        address = self._enter_root(needs)
        if "uts" not in self.lacking:
            socket.sethostname(certificate["name"])
        if certificate["traceable"] and "root" in self.lacking and not identity.may_trace_others():
            self.lacking.setdefault("uid", CORE)  # where there is a root, its files are that uid's already
        self._try("uid", lambda: identity.take_uid(self.person.uid, needs.checked))
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
        self._try("landlock", lambda: landlock.restrict(
            self._rules(needs, kind), tcp=kind is Kind.NETWORK, scopes=scopes))
        self._try("seccomp", lambda: seccomp.install(seccomp.compiled(calls, settings["seccomp"])))
        return address

    def _enter_groups(self) -> None:
        for group in self._groups:
            if not group.shares_cpus:
                group.enter(self._pid)

    def _bound_groups(self, kind: Kind, memory_kib: int) -> None:
        for group in self._groups:
            if group.shares_cpus and kind is Kind.PROGRAM:
                group.enter(self._pid)
            group.bound(self._pid, limits.of_all_processes(kind, memory_kib=memory_kib))

    def _begin_root(self) -> None:
        self._root = Root(self.person.owners)
        try:
            for path in view.interpreter():
                self._root.give(path)
            for path in view.SYSTEM:
                self._root.give_system(path)
            for path in view.DEVICES:
                self._root.give_device(path)
            self._root.link(XENSTORED, HYPERCALLS)
        except OSError:
            self._abandon_root()
            raise

    def _enter_root(self, needs: Needs) -> str:
        """The address of the endpoint, in a root of our own or in the host's."""
        if self._root is not None and "root" not in self.lacking:
            self._try("root", lambda: self._finish_root(needs))
        if "root" not in self.lacking:
            return f"ipc://{HYPERCALLS}/{ENDPOINT}"
        self._abandon_root()
        return socket_address(os.open(needs.endpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), ENDPOINT)

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
        self._root.give(HYPERCALLS, source=needs.endpoint)
        self._root.enter()
        self._root = None
        if self.person.owners >= 0:
            os.close(self.person.owners)

    def _abandon_root(self) -> None:
        if self._root is not None:
            self._root.abandon()
            self._root = None

    def _rules(self, needs: Needs, kind: Kind) -> list[tuple[str, int]]:
        read = landlock.READ | (landlock.EXECUTE if kind is Kind.PROGRAM else 0)
        shown = ["/"] if "root" not in self.lacking else [*view.interpreter(), *view.SYSTEM, *needs.commands,
                                                          *needs.readable]  # fmt: skip
        rules = [(path, read) for path in shown]
        rules += [(path, landlock.DEVICE) for path in (*view.DEVICES, *needs.terminals)]
        return rules + [(path, landlock.WRITE) for path in needs.writable]


class Needs:
    """The files of the host that one domain is given beside what all are given."""

    def __init__(self, certificate: dict[str, Any], kind: Kind) -> None:
        kernel: str = certificate["kernel"]
        given = [split_path(path) for path in certificate["sandbox"]["paths"]]
        self.run_dir: str = certificate["run_dir"]
        self.endpoint = f"{self.run_dir}/{certificate['endpoint']}"
        self.writable = [path for path, writable in given if writable]
        self.readable = [path for path, writable in given if not writable]
        if "/" in kernel:
            self.readable += dict.fromkeys((os.path.dirname(kernel), os.path.dirname(os.path.realpath(kernel))))
        self.commands = list(view.commands()) if kind is Kind.PROGRAM else []
        self.terminals = list(view.TERMINALS) if certificate["domid"] == DOM0 else []
        if certificate["domid"] == DOM0:
            self.writable.append(f"{self.run_dir}/{LOG}")  # the consoles' logs are its daemon's
        self.given = [(path, os.R_OK) for path in (*self.readable, *([kernel] if "/" in kernel else []))]
        self.given += [(path, os.R_OK | os.W_OK) for path in self.writable]
        self.checked = [*self.given, *((path, os.R_OK) for path in view.interpreter())]
        if self.terminals:
            self.checked.append(("/dev/ptmx", os.R_OK | os.W_OK))


def _without_files(certificate: dict[str, Any]) -> dict[str, Any]:
    """The certificate of a domain whose own process runs no file and is given none: its program is."""
    return {**certificate, "kernel": "", "sandbox": {**certificate["sandbox"], "paths": []}}


def _make_files(writable: list[str]) -> None:
    """A file that is to be written and is not there is made."""
    for path in writable:
        if not os.path.lexists(path):
            with contextlib.suppress(OSError):  # then the kernel that opens it is told why it is not there
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
