"""The namespaces a domain's process is born into, and what is tried where a kernel or container refuses some."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection

from hvd.transport.process import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    fork_sibling,
)

FLAGS = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "mount": CLONE_NEWNS,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
}
OFF = "switched off by sandbox_off"
REFUSED = (errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.EUSERS)
"""How a kernel says that there are no such namespaces for us."""
_ALL = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
CHOICES = (
    _ALL,
    _ALL | CLONE_NEWUSER,
    _ALL & ~CLONE_NEWNET,
    _ALL & ~CLONE_NEWNET | CLONE_NEWUSER,
    CLONE_NEWPID,
    CLONE_NEWPID | CLONE_NEWUSER,
    0,
)
"""Tried in this order. With a PID namespace a domain's death is that of all it started: the fence stands on it."""


class Namespaces:
    """What works here, found out by the first fork and kept."""

    def __init__(self) -> None:
        self._choice = 0
        self.refusal = ""
        """Why not all of them."""

    def fork(self, off: Collection[str]) -> tuple[int, int]:
        """Fork a sibling into as many as there can be, but for those that are off: (pid, flags). OSError if refused."""
        unwanted = sum(FLAGS[name] for name in FLAGS if name in off)
        choice = self._choice
        while True:
            flags = CHOICES[choice] & ~unwanted
            try:
                return fork_sibling(flags), flags
            except OSError as error:
                if error.errno not in REFUSED or choice + 1 == len(CHOICES):
                    raise
                if CHOICES[choice] != _ALL:  # that alone needs root, which nobody need have
                    self.refusal = f"the kernel refuses {_names(flags)} namespaces: {error.strerror}"
                choice += 1
                if not unwanted:
                    self._choice = choice

    def lacking(self, flags: int, off: Collection[str]) -> dict[str, str]:
        """The layers a process with these flags does without, each with the reason; those that are off among them.

        What is put on next goes by it: a root that is built without a mount namespace is built over the host's.
        """
        reason = self.refusal or "the kernel refuses such a namespace"
        lacks = {name: OFF if name in off else reason for name, flag in FLAGS.items() if not flags & flag}
        if "user" in lacks and "user" not in off and flags and os.geteuid() == 0:
            lacks["user"] = "started by root: the layer uid takes its place"
        return lacks


def _names(flags: int) -> str:
    return ", ".join(name for name, flag in FLAGS.items() if flags & flag)


def map_own_user(uid: int, gid: int) -> None:
    """In a new user namespace: be who we were."""
    process = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    map_user(process, (uid, gid), (uid, gid))
    os.close(process)


def map_user(process: int, inside: tuple[int, int], outside: tuple[int, int]) -> None:
    """In a new user namespace: be this user and group, who outside are those. `process`: our directory in a /proc."""
    (uid, gid), (outer_uid, outer_gid) = inside, outside
    lines = {"setgroups": "deny", "uid_map": f"{uid} {outer_uid} 1", "gid_map": f"{gid} {outer_gid} 1"}
    for file, line in lines.items():
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=process)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
