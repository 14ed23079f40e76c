"""Landlock: which files a domain may read and write, no TCP, and no signal or abstract socket out of its domain.

It covers what a hole in the layers below it would show, and is the lock on files where there is no root of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from hvd.transport._native import landlock_abi, landlock_allow, landlock_create, landlock_restrict

# linux/landlock.h; the comments say since which ABI.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER = 1 << 13  # 2
TRUNCATE = 1 << 14  # 3
IOCTL_DEV = 1 << 15  # 5
FILE_ACCESS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What can be allowed on something that is no directory."""
TCP = 0b11  # bind, connect: 4
ABSTRACT_SOCKETS, SIGNALS = 0b01, 0b10  # 6
SCOPES = ABSTRACT_SOCKETS | SIGNALS
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
SCRATCH = WRITE | EXECUTE | MAKE_SOCK | MAKE_FIFO
"""Where a program does as it likes."""
DEVICE = READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV
ABSENT = {errno.ENOSYS: "the kernel is built without it", errno.EOPNOTSUPP: "it is not in the kernel's lsm="}
NETWORK_SINCE, SCOPES_SINCE = 4, 6


class Unavailable(OSError):
    """The kernel has no Landlock, or it is not switched on."""


class Ruleset:
    """What is allowed beneath some paths, in force for nobody before `restrict`."""

    def __init__(self, rules: Iterable[tuple[str, int]], *, tcp: bool, scopes: int = SCOPES) -> None:
        """Allow this, and no other but what `allow` adds. OSError when there is no Landlock."""
        try:
            abi = landlock_abi()
        except OSError as error:
            raise Unavailable(error.errno, ABSENT.get(error.errno or 0, error.strerror)) from None
        self._known = _known(abi)
        network = TCP if abi >= NETWORK_SINCE and not tcp else 0
        scopes = scopes if abi >= SCOPES_SINCE else 0
        size = 24 if abi >= SCOPES_SINCE else 16 if abi >= NETWORK_SINCE else 8
        self._ruleset = landlock_create(self._known, network, scopes, size)
        try:
            self.allow(rules)
        except OSError:
            self.close()
            raise

    def allow(self, rules: Iterable[tuple[str, int]]) -> None:
        """This access beneath these paths, as they lead now. Those that are not there are left out."""
        for path, access in rules:
            _allow(self._ruleset, path, access & self._known)

    def restrict(self) -> None:
        """Us to that, for good. Needs no_new_privs."""
        landlock_restrict(self._ruleset)

    def close(self) -> None:
        """It is of no use any more; who is restricted stays so."""
        os.close(self._ruleset)


def _known(abi: int) -> int:
    bits = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    return (1 << bits) - 1


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        landlock_allow(ruleset, path, access if os.path.isdir(path) else access & FILE_ACCESS)
    except FileNotFoundError:
        return
