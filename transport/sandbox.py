"""What a domain's sandbox is made of, by name: its layers, the kinds of domains, and what a domain says of its own."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a domain is for, and so which system calls it may make."""

    GUEST = "guest"
    """Computes, and uses its devices: no process beside its own, no socket but Unix ones."""
    DRIVER = "driver"
    """Serves devices from files that it is handed."""
    NETWORK = "network"
    """Serves devices from the host's network, whose namespace it stays in."""
    PROGRAM = "program"
    """Starts other programs."""


LAYERS = {
    "user": "capabilities over anything that is not its own",
    "pid": "seeing, signalling or tracing a process that is not its own",
    "mount": "mounting anything where others see it",
    "network": "the host's network, loopback and abstract sockets",
    "ipc": "System V and POSIX queues and semaphores of others",
    "uts": "the host's name",
    "cgroups": "more memory and processes than it may have in all, more of a disk than its io_bps",
    "root": "every file it was not given, /proc, other domains' endpoints",
    "limits": "exhausting descriptors, processes, memory or file sizes",
    "uid": "files and processes of whoever started the machine",
    "opaque": "being read or traced by others of the same user",
    "capabilities": "whatever takes a privilege",
    "no-new-privs": "gaining privileges by running a program",
    "landlock": "files not given to it, TCP, signals and abstract sockets out of its domain",
    "seccomp": "system calls it has no use for, and so most holes of the kernel",
}
"""In the order they are put on, each with what it stops."""
ACTIONS = ("kill", "eperm")
"""What a system call that seccomp does not allow leads to: the domain's end, or EPERM for whoever looks for it."""
RESERVED_KIB = 256 << 10
"""Beside a domain's `memory`: what stacks, arenas and libraries take of the address space and mostly never touch."""
WRITABLE = ":w"
"""Ends a path that a domain may write."""


def split_path(given: str) -> tuple[str, bool]:
    """A path as it stands in `paths`, and whether it may be written."""
    return (given[: -len(WRITABLE)], True) if given.endswith(WRITABLE) else (given, False)


def in_force(lacking: dict[str, str]) -> list[str]:
    """The layers that hold."""
    return [name for name in LAYERS if name not in lacking]
