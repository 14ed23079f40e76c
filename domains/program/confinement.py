"""The sandbox of a program, put on by the process that is to run it, beside the one of its domain's init.

It is root in a user namespace of its own that owns nothing but its network: there it may do what takes a privilege
(open a raw socket, set an address), and nowhere else. Its mounts belong to an outer namespace, so it cannot change
them; it can make no namespace and trace no process. A layer that cannot be had is noted, as in any sandbox.
"""

from __future__ import annotations

import contextlib
import os
import pty
from typing import Any

from hvd.domains.program import network
from hvd.domains.sandbox import identity, landlock, limits, program_view, seccomp
from hvd.domains.sandbox.layered import Layered
from hvd.domains.sandbox.namespaces import OFF, map_user
from hvd.domains.sandbox.needs import Needs
from hvd.domains.sandbox.root import STAGE, Root
from hvd.domains.sandbox.sandbox import Sandbox
from hvd.transport._native import detach_mount, leave_namespaces, set_dumpable
from hvd.transport.process import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, die_with_parent, write_file
from hvd.transport.sandbox import Kind

CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW = 10, 12, 13
KEPT = 1 << CAP_NET_BIND_SERVICE | 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW
"""Over the network namespace that is its own."""
ROOT = (0, 0)
OOM_SCORE_ADJ = "900"
"""Before init, so that what is said of the death is true, and before whatever is not a domain's program."""
OWN_USER = "own user"
"""Not a layer: without it a program has no privilege in its own network."""


class Confinement(Layered):
    """Of the calling process, which has one thread and was forked from init for this."""

    def __init__(self, certificate: dict[str, Any], sandbox: Sandbox) -> None:
        self._certificate = certificate
        self._settings = certificate["sandbox"]
        self._sandbox = sandbox
        self._needs = Needs(certificate, Kind.PROGRAM)
        self.lacking: dict[str, str] = dict(sandbox.lacking)
        self.taps: list[int] = []
        """As many TAPs as there may be interfaces in our network namespace, of no device yet."""
        self.no_taps = ""
        """Why there are none."""
        self.netlink = -1
        """What init configures our network namespace by."""

    def leave_mounts(self) -> None:
        """What init mounts from here on is not ours, and the reverse; the host's files are here."""
        self._sandbox.show_host()
        if "mount" not in self.lacking:
            leave_namespaces(CLONE_NEWNS)

    def put_on(self) -> tuple[int, int, int]:
        """All of it: (master, slave) of a terminal, and our /proc/PID/status, or -1. OSError when we may not go on."""
        process = self._own_directory()
        taps = network.Taps(None if {"uid", "mount"} & self.lacking.keys() else (self._uid, self._uid))
        master, slave = self._enter_root()
        self._limit()
        if "uid" not in self.lacking:
            identity.take_uid(self._uid, self._needs.given)
        self._be_root_at_home(process)
        netlink = network.open_netlink()
        network.set_up_loopback(netlink)
        self.netlink = netlink.detach()
        self.taps = taps.open()
        self.no_taps = taps.refusal
        status = self._open_status(process)
        os.close(process)
        kept = 0 if OWN_USER in self.lacking else KEPT
        self._try("capabilities", lambda: identity.give_up_privileges(kept))
        self._try("no-new-privs", identity.gain_no_privileges)
        die_with_parent(os.getppid())
        self._try("landlock", lambda: landlock.Ruleset(self._rules(), tcp=True).restrict())
        self._try("seccomp", lambda: seccomp.install(seccomp.compiled(Kind.PROGRAM, seccomp.PROGRAMS_ACTION)))
        return master, slave, status

    @property
    def _uid(self) -> int:
        return self._sandbox.person.uid

    def _own_directory(self) -> int:
        """Ours in the host's /proc, which init's root-to-be hides."""
        if self._sandbox.hides_proc:
            detach_mount(STAGE)
        process = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            write_file("oom_score_adj", OOM_SCORE_ADJ, process)
        return process

    def _enter_root(self) -> tuple[int, int]:
        """A terminal, in a root of our own or in the host's."""
        if "root" not in self.lacking:
            try:
                return self._make_root()
            except OSError as error:
                self.lacking["root"] = str(error.strerror)
        return pty.openpty()

    def _make_root(self) -> tuple[int, int]:
        root = Root(self._sandbox.person.owners)
        try:
            terminal = self._furnish(root)
            root.enter()
        except OSError:
            root.abandon()
            raise
        return terminal

    def _furnish(self, root: Root) -> tuple[int, int]:
        owner = (self._uid, self._uid) if "uid" not in self.lacking else (os.geteuid(), os.getegid())
        self.lacking |= program_view.build(root, self._certificate["name"], owner, self._settings["memory_kib"])
        for path in self._needs.readable:
            if not program_view.shows(path):
                root.give(path)
        root.hide(self._needs.run_dir)
        for path in self._needs.writable:
            root.give(path, writable=True)
        return program_view.open_console(owner)

    def _limit(self) -> None:
        """Of memory as much as it may ever have: nobody moves a limit of its processes. Its control group's moves."""
        own_user, most = not {"user", "uid"} <= self.lacking.keys(), self._settings["maxmem_kib"]
        self._try("limits", lambda: limits.apply(
            Kind.PROGRAM, memory_kib=most, maxmem_kib=most, used_bytes=0, own_user=own_user))

    def _be_root_at_home(self, process: int) -> None:
        """Root in a user namespace of our own, which the network belongs to unless it is the host's."""
        if {"user", "uid"} & set(self._settings["off"]):
            self.lacking[OWN_USER] = OFF
            return
        outside = os.geteuid(), os.getegid()
        set_dumpable(True)  # else our files in /proc are root's, and root is not who we are
        try:
            leave_namespaces(CLONE_NEWUSER | (0 if "network" in self.lacking else CLONE_NEWNET))
            map_user(process, ROOT, outside)
        except OSError as error:
            self.lacking[OWN_USER] = str(error.strerror)

    def _open_status(self, process: int) -> int:
        try:
            return os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        except OSError:
            return -1

    def _rules(self) -> list[tuple[str, int]]:
        if "root" in self.lacking:
            shown = [(path, landlock.READ | landlock.EXECUTE) for path in (*program_view.SYSTEM, *self._needs.readable)]
        else:
            shown = [("/", landlock.READ | landlock.EXECUTE), ("/proc", landlock.READ | landlock.WRITE_FILE)]
            shown += [(path, landlock.SCRATCH) for path in program_view.SCRATCH]
        shown += [(path, landlock.DEVICE) for path in (*program_view.DEVICES, "/dev/pts", program_view.CONSOLE)]
        return shown + [(path, landlock.SCRATCH) for path in self._needs.writable]
