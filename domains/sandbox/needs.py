"""Which files of the host one domain is given beside what all are given, and what it may do with them."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from hvd.domains.sandbox import landlock, view
from hvd.transport.ids import DOM0
from hvd.transport.run_dir import LOG
from hvd.transport.sandbox import Kind, split_path


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
        if self.terminals:
            self.given.append(("/dev/ptmx", os.R_OK | os.W_OK))
        self.rules = [(path, landlock.DEVICE) for path in self.terminals]
        """For Landlock: what it may do beyond reading what it is shown."""
        self.rules += [(path, landlock.WRITE) for path in self.writable]


def legible() -> list[tuple[str, int]]:
    """What every domain has to be able to read, with os.access modes."""
    return [(path, os.R_OK) for path in view.interpreter()]


def rules_of_own_root(read: int) -> list[tuple[str, int]]:
    """For Landlock, in a root of our own."""
    return [("/", read), *((path, landlock.DEVICE) for path in view.DEVICES)]


def without_files(certificate: dict[str, Any]) -> dict[str, Any]:
    """The certificate of a domain whose own process runs no file and is given none: its program is."""
    return {**certificate, "kernel": "", "sandbox": {**certificate["sandbox"], "paths": []}}


def make_files(writable: list[str]) -> None:
    """A file that is to be written and is not there is made."""
    for path in writable:
        if not os.path.lexists(path):
            with contextlib.suppress(OSError):  # then the kernel that opens it is told why it is not there
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
