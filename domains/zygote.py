"""The zygote: a warm image that domains are forked from, as children of the machine; nothing of theirs is in it."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sys
from importlib import import_module
from typing import Any

from hvd.domains import birth
from hvd.domains.drivers import SHIPPED as DRIVERS
from hvd.domains.kernel import SHIPPED as KERNELS
from hvd.transport.descriptors import receive_message, send_message
from hvd.transport.machine_link import SPAWN, SPAWNED
from hvd.transport.process import CLONE_NEWPID, CLONE_NEWUSER, fork_sibling

PRELOADED = tuple(import_module(target.partition(":")[0]) for target in (*KERNELS.values(), *DRIVERS.values()))
"""Everything shipped is in the image: a birth that imports takes milliseconds longer."""

NAMESPACES = (CLONE_NEWPID, CLONE_NEWPID | CLONE_NEWUSER, 0)
"""Tried in this order. With a PID namespace a domain's death is that of all it started: the fence stands on it."""


def run_zygote(link: socket.socket) -> None:
    """Fork a domain for each request until the machine closes the link."""
    gc.collect()
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited: a domain takes it when it can handle it
    choice = 0
    while True:
        received = receive_message(link)
        if received is None:
            return
        message, descriptors = received
        if message[0] == SPAWN:
            choice = _spawn(link, message, descriptors, choice)
        for descriptor in descriptors:
            os.close(descriptor)


def _spawn(link: socket.socket, message: list[Any], descriptors: list[int], choice: int) -> int:
    """Fork one domain; returns the namespaces that worked, to begin with next time."""
    _, domid, incarnation, name = message
    while True:
        try:
            pid = fork_sibling(NAMESPACES[choice])
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.EUSERS) and choice + 1 < len(NAMESPACES):
                choice += 1
                continue
            send_message(link, [SPAWNED, domid, incarnation, f"fork: {error.strerror}"])
            return choice
        if pid == 0:
            _become_domain(NAMESPACES[choice], name, domid, descriptors)
        send_message(link, [SPAWNED, domid, incarnation, pid])
        return choice


def _become_domain(namespaces: int, name: str, domid: int, descriptors: list[int]) -> None:
    """The child's side; never returns."""
    status = 1
    try:
        birth.live(namespaces, name, domid, upcall_descriptor=descriptors[0], stdio=descriptors[1])
        status = 0
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into the zygote
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
