"""A domain's process before it is anybody's: forked ahead, done with all that needs no identity, waiting for one.

The zygote makes it and keeps one end of a seqpacket socket. Up that goes, once it stands by, the mount namespace that
it lives in; down that come, once, the domain's name, its upcall socket and its standard output, and then, when the
machine has been told whose process it is, that it may live. Whoever reads end of file there has lost its zygote, and
without a name it ends. With one it waits: if the machine was not told, it kills us and has another process made, for
which what waits in the upcall socket is to be there yet.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import time
from collections.abc import Callable, Collection
from typing import NoReturn

from hvd.domains.birth_pages import BirthPages
from hvd.domains.sandbox import Sandbox
from hvd.domains.sandbox.namespaces import Namespaces, map_own_user
from hvd.transport.cgroups import DomainGroups
from hvd.transport.descriptors import receive_message, send_message, socket_pair
from hvd.transport.errors import PeerFault
from hvd.transport.process import (
    CLONE_NEWUSER,
    die_with_parent,
    exit_on_fatal_signals,
    set_process_name,
    write_file,
)
from hvd.transport.records import dataclass

LIVE = "live"
ORPHANED_S, ORPHANED_LOOKS = 0.1, 20
"""How long one that has a name, and has not been let live, waits for the machine to kill it: so many times so long,
since whoever was stopped together with the machine has not waited. One that lives by then was told of: its zygote died
between the two words, and a domain has lost two seconds."""
OOM_SCORE_ADJ = "500"
"""When memory runs out a domain is killed, and started again; never the broker, let alone the machine."""
OUTSIDE_IDS = (os.geteuid(), os.getegid())
"""Read in the zygote: in a new user namespace nobody is mapped yet."""
NAME = "hvd:standby"
STANDS_BY = "stands by"
UPCALL = 3
"""The descriptor of a domain's upcall socket, and before it has one, of the socket that it comes down."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process that waits needs to become a domain's."""

    upcalls: socket.socket
    sandbox: Sandbox
    """As far as it goes without knowing whose it is."""


class Standby:
    """The zygote's handle of a process that waits."""

    def __init__(self, pid: int, link: socket.socket, *, will_stand_by: bool) -> None:
        self.pid = pid
        self._link = link
        self.is_to_be_heard = will_stand_by
        """Whether it may say yet that it stands by."""

    def fileno(self) -> int:
        """Readable when it stands by, or has died: then `hear`."""
        return self._link.fileno()

    def hear(self) -> int | None:
        """The mount namespace that it lives in, ours to close; None when it has gone, or has nothing to say."""
        self.is_to_be_heard = False
        try:
            received = receive_message(self._link)
        except (OSError, PeerFault):
            received = None
        return None if received is None else received[1][0]

    def close(self) -> None:
        self._link.close()

    def become(self, name: str, descriptors: list[int]) -> bool:
        """Hand it its identity; False when it is dead."""
        return self._send([name], tuple(descriptors))

    def let_live(self) -> None:
        """The machine has been told whose it is. `close` it then, but not while it `is_to_be_heard`.

        Who closes a socket with something unread in it has the kernel fail the other end's next read.
        """
        self._send([LIVE])

    def _send(self, message: list[str], descriptors: tuple[int, ...] = ()) -> bool:
        try:
            send_message(self._link, message, descriptors)
        except OSError:
            return False
        return True



def fork_standby(
    namespaces: Namespaces,
    groups: list[DomainGroups],
    pages: BirthPages,
    live: Callable[[Identity], None],
    off: Collection[str] = (),
    *,
    waits: bool,
) -> Standby:
    """A process that will `live` once it is told who it is, in these groups, in none of a layer that is off.

    `waits`: that will not be at once. OSError when there can be none.
    """
    ours, theirs = socket_pair()
    try:
        pid, flags = namespaces.fork(off)
        if pid == 0:
            ours.detach()
            if waits:
                pages.bring_in()
            lacking, in_user_namespace = namespaces.lacking(flags, off), bool(flags & CLONE_NEWUSER)
            sandbox = Sandbox(lacking, [] if "cgroups" in off else groups, in_user_namespace=in_user_namespace)
            _run(flags, sandbox, theirs.detach(), live, waits=waits)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Standby(pid, ours, will_stand_by=waits)


def _run(flags: int, sandbox: Sandbox, link: int, live: Callable[[Identity], None], *, waits: bool) -> NoReturn:
    """The new process, from fork to death."""
    status = 1
    try:
        _leave_the_zygote(flags, link)
        identity = _wait_for_identity(sandbox, waits=waits)
        if identity is not None:
            live(identity)
        status = 0
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into the zygote
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait_for_identity(sandbox: Sandbox, *, waits: bool) -> Identity | None:
    """Put on what needs none, and wait for it; None when the zygote has gone before it had a use for us."""
    waiting = socket.socket(fileno=UPCALL)
    sandbox.begin(waits=waits)
    waiting.setblocking(True)
    try:
        if sandbox.mounts >= 0:
            with contextlib.suppress(OSError):  # the zygote is dead, and nobody hears it
                send_message(waiting, [STANDS_BY], (sandbox.mounts,))
        received = receive_message(waiting)
        if received is not None and receive_message(waiting) is None:
            for _ in range(ORPHANED_LOOKS):
                time.sleep(ORPHANED_S)
    finally:
        waiting.detach()
    if received is None:
        return None
    (name,), (upcalls, stdio) = received
    for source, target in ((upcalls, UPCALL), (stdio, 1), (stdio, 2)):
        os.dup2(source, target, inheritable=target != UPCALL)
    os.close(upcalls)
    os.close(stdio)
    set_process_name(f"hvd:{name}")
    return Identity(socket.socket(fileno=UPCALL), sandbox)


def _leave_the_zygote(flags: int, link: int) -> None:
    """Nothing of the zygote's stays but its standard descriptors, until there are better ones."""
    set_process_name(NAME)
    if flags & CLONE_NEWUSER:
        map_own_user(*OUTSIDE_IDS)
    die_with_parent(os.getppid())
    with contextlib.suppress(OSError):  # no /proc: then the kernel chooses among all alike
        write_file("/proc/self/oom_score_adj", OOM_SCORE_ADJ)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(link, UPCALL, inheritable=False)
    os.closerange(UPCALL + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_on_fatal_signals()
    faulthandler.enable(2)
