"""Who a domain's process is to the host: a uid of its own where root started it, no privilege, and none to be had."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from hvd.transport._native import (
    drop_bounding_set,
    drop_capabilities,
    has_capability,
    make_user_namespace,
    no_new_privileges,
    set_dumpable,
)
from hvd.transport.process import die_with_parent
from hvd.transport.records import dataclass

CAP_SYS_PTRACE = 19
FIRST_UID = 1_900_000_000
"""Above what distributions, systemd and container engines hand out."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a process that root started can become, and how what root owns becomes its own in its own root."""

    uid: int
    owners: int
    """A descriptor of the user namespace that its files' owners are translated by; -1: they cannot be."""


class Unreadable(OSError):
    """A domain's files are not open to anybody but root."""


def new_person(pid: int) -> Person:
    """With a uid that is this process's alone while it lives: counted from its pid on the host, which no two share."""
    uid = FIRST_UID + pid
    try:
        return Person(uid, make_user_namespace(uid))
    except OSError:
        return Person(uid, -1)


def check_access(uid: int, needed: Iterable[tuple[str, int]]) -> None:
    """Whether a user and group of that number, of no other group, can use these: paths with os.access modes.

    Unreadable if it cannot. For root, who stays what he is: access(2) asks for the real user, who has no other part.
    """
    there = [(path, mode | os.X_OK * os.path.isdir(path)) for path, mode in needed if os.path.exists(path)]
    groups = os.getgroups()
    try:
        os.setgroups([])
        os.setresgid(uid, -1, -1)
        os.setresuid(uid, -1, -1)
        for path, mode in there:
            if not os.access(path, mode):
                raise Unreadable(0, f"{path} is not open to others, and its file system translates no owners")
    finally:
        os.setresuid(0, -1, -1)
        os.setresgid(0, -1, -1)
        os.setgroups(groups)


def take_uid(uid: int, needed: Collection[tuple[str, int]]) -> None:
    """Become a user and group of that number, for good, with no other group.

    Unreadable, and nothing has changed, when such a user could not use one of `needed`, as in `check_access`.
    """
    if needed:
        check_access(uid, needed)
    drop_bounding_set()  # takes a capability, which goes with the uid
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    die_with_parent(os.getppid())  # the kernel forgets that when the uid changes


def may_trace_others() -> bool:
    """Whether what root has started may trace processes of other users: most containers forbid it."""
    return has_capability(CAP_SYS_PTRACE)


def give_up_privileges(kept: int = 0) -> None:
    """No capability in any set, but for those of this mask of 1 << CAP_*."""
    drop_bounding_set(kept)
    drop_capabilities(kept)


def gain_no_privileges() -> None:
    """Running a program gives nothing more."""
    no_new_privileges()


def be_opaque(*, opaque: bool) -> None:
    """Whether others of the same uid are kept from this process's memory, descriptors and environment."""
    set_dumpable(not opaque)
