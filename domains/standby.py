"""A domain's process before it is anybody's: forked ahead, done with all that needs no identity, waiting for one.

The zygote makes it and keeps one end of a seqpacket socket. Down that come, once, the domain's name, its upcall socket
and its standard output. Whoever reads end of file there has lost its zygote, and ends.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import select
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import zmq

from hvd.transport.descriptors import receive_message, send_message, socket_pair
from hvd.transport.hypercalls import warm_context
from hvd.transport.process import (
    CLONE_NEWPID,
    CLONE_NEWUSER,
    die_with_parent,
    exit_on_fatal_signals,
    fork_sibling,
    set_process_name,
)

NAMESPACES = (CLONE_NEWPID, CLONE_NEWPID | CLONE_NEWUSER, 0)
"""Tried in this order. With a PID namespace a domain's death is that of all it started: the fence stands on it."""
REFUSED = (errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.EUSERS)
"""How a kernel says that there are no such namespaces for us."""
OOM_SCORE_ADJ = "500"
"""When memory runs out a domain is killed, and started again; never the broker, let alone the machine."""
OUTSIDE_IDS = (os.geteuid(), os.getegid())
"""Read in the zygote: in a new user namespace nobody is mapped yet."""
NAME = "hvd:standby"
UPCALL = 3
"""The descriptor of a domain's upcall socket, and before it has one, of the socket that it comes down."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process that waits needs to become a domain's."""

    upcalls: socket.socket
    context: zmq.Context[Any]
    """Its threads run: the first hypercall does not wait for them."""


class Standby:
    """The zygote's handle of a process that waits."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self._link = link

    def become(self, name: str, descriptors: list[int]) -> bool:
        """Hand it its identity; False when it is dead. It is used up either way."""
        try:
            send_message(self._link, [name], tuple(descriptors))
        except OSError:
            return False
        finally:
            self._link.close()
        return True


def fork_standby(choice: int, live: Callable[[Identity], None]) -> tuple[Standby, int]:
    """A process that will `live` once it is told who it is. OSError when there can be none.

    `choice` says which namespaces to begin with; the one that worked comes back.
    """
    ours, theirs = socket_pair()
    try:
        while True:
            try:
                pid = fork_sibling(NAMESPACES[choice])
                break
            except OSError as error:
                if error.errno not in REFUSED or choice + 1 == len(NAMESPACES):
                    ours.close()
                    raise
                choice += 1
        if pid == 0:
            ours.detach()
            _run(NAMESPACES[choice], theirs.detach(), live)
    finally:
        theirs.close()
    return Standby(pid, ours), choice


def _run(namespaces: int, link: int, live: Callable[[Identity], None]) -> NoReturn:
    """The new process, from fork to death."""
    status = 1
    try:
        _leave_the_zygote(namespaces, link)
        identity = _wait_for_identity()
        if identity is not None:
            live(identity)
        status = 0
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into the zygote
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait_for_identity() -> Identity | None:
    """Make ready, unless it is here already, and sleep; None when the zygote has gone before it had a use for us."""
    waiting = socket.socket(fileno=UPCALL)
    hurried = bool(select.select([waiting], [], [], 0)[0])
    context = zmq.Context() if hurried else warm_context()
    waiting.setblocking(True)
    try:
        received = receive_message(waiting)
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
    return Identity(socket.socket(fileno=UPCALL), context)


def _leave_the_zygote(namespaces: int, link: int) -> None:
    """Nothing of the zygote's stays but its standard descriptors, until there are better ones."""
    set_process_name(NAME)
    if namespaces & CLONE_NEWUSER:
        _map_own_user()
    die_with_parent(os.getppid())
    with contextlib.suppress(OSError):  # no /proc: then the kernel chooses among all alike
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ, encoding="ascii")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(link, UPCALL, inheritable=False)
    os.closerange(UPCALL + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_on_fatal_signals()
    faulthandler.enable(2)


def _map_own_user() -> None:
    """In a new user namespace: be who we were."""
    uid, gid = OUTSIDE_IDS
    for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as handle:
            handle.write(line)
