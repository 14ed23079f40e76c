"""The command that attaches this terminal to a domain's console."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

from hvd.toolstack.cluster import Cluster, Domain, NotReached
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import StoreRead

DETACH = b"\x1d"
"""Ctrl-]"""
APPEAR_DEADLINE_S = 5.0
APPEAR_INTERVAL_S = 0.05
READ_BYTES = 4096
STDIN, STDOUT = 0, 1


def console(name: str) -> None:
    """Pass what is typed to the domain and what it prints to us, until Ctrl-], or the console is gone."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        path = terminal_path(cluster, domain)
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        with _raw(STDIN):
            sys.stderr.write(f"hvd: attached to {domain.name} (domid {domain.domid}); Ctrl-] detaches\r\n")
            sys.stderr.flush()
            why = _pass_on(terminal)
        sys.stderr.write(f"\nhvd: {why}\n")
    finally:
        os.close(terminal)


def terminal_path(cluster: Cluster, domain: Domain) -> str:
    """The pty that the console daemon in dom0 gave the domain. It makes it soon after the domain is made."""
    node = f"/local/domain/{domain.domid}/console/tty"
    until = time.monotonic() + APPEAR_DEADLINE_S
    while True:
        try:
            path = bytes(cluster.call(StoreRead(0, node))).decode()
            if path:
                return path
        except HypercallError:
            pass  # no such node yet
        if time.monotonic() > until:
            raise NotReached(f"domain {domain.name} has no console: dom0 serves it; look at `hvd dmesg`")
        time.sleep(APPEAR_INTERVAL_S)


def _pass_on(terminal: int) -> str:
    """Until either side ends; says which."""
    while True:
        ready = select.select([STDIN, terminal], [], [])[0]
        if terminal in ready:
            data = _read(terminal)
            if not data:
                return "the console is gone"
            os.write(STDOUT, data)
        if STDIN in ready:
            data = os.read(STDIN, READ_BYTES)
            before, detach, _ = data.partition(DETACH)
            os.write(terminal, before)
            if detach or not data:
                return "detached"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, READ_BYTES)
    except OSError:
        return b""  # EIO: the other side was closed


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """A terminal passes every key on, Ctrl-C too; it is put back as it was."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
