"""What a domain's process may use up, as the kernel counts it for one process or one user."""

from __future__ import annotations

import mmap
import os
import resource

from hvd.transport.sandbox import RESERVED_KIB, Kind

MIB = 1 << 20
DESCRIPTORS_MAX = 4096
PROCESSES_MAX, PROGRAM_PROCESSES_MAX = 64, 512
"""Threads count too; the second for a domain that starts programs."""
FILE_BYTES_MAX = 1024 * MIB
"""Of a file that a domain writes by itself; a driver domain's images are as large as they are."""


def private_bytes() -> int:
    """What this process has of private writable memory; read while there is a /proc."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # a file object takes a fresh process 1 ms
    try:
        return int(os.read(descriptor, 200).split()[5]) * mmap.PAGESIZE
    finally:
        os.close(descriptor)


def apply(kind: Kind, *, memory_kib: int, maxmem_kib: int, used_bytes: int, own_user: bool) -> None:
    """Set the limits; none is raised. `own_user`: nobody else's processes count for ours.

    Of memory the soft limit moves while we run (`keep_to`): it counts from the hard one.
    """
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_MSGQUEUE: 0}
    if kind in (Kind.GUEST, Kind.PROGRAM):
        limits[resource.RLIMIT_FSIZE] = FILE_BYTES_MAX
        limits[resource.RLIMIT_NOFILE] = DESCRIPTORS_MAX
    if own_user:
        limits[resource.RLIMIT_NPROC] = _processes(kind)
    # Descriptors on their way count for a user, against the sender's own limit: the broker's must be above ours.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        limits[resource.RLIMIT_NOFILE] = min(limits.get(resource.RLIMIT_NOFILE, hard), hard // 2)
    for what, most in limits.items():
        _lower(what, most, most)
    _lower(resource.RLIMIT_DATA, *(used_bytes + (kib + RESERVED_KIB) * 1024 for kib in (memory_kib, maxmem_kib)))


def keep_to(*, memory_kib: int, maxmem_kib: int) -> None:
    """Move the soft limit of a process that was born with so much for `maxmem`; nothing where that layer is off."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_DATA, (max(0, hard - (maxmem_kib - memory_kib) * 1024), hard))


def _lower(what: int, soft_most: int, hard_most: int) -> None:
    now = zip(resource.getrlimit(what), (soft_most, hard_most), strict=True)
    soft, hard = (most if limit == resource.RLIM_INFINITY else min(limit, most) for limit, most in now)
    resource.setrlimit(what, (soft, hard))


def of_all_processes(kind: Kind, *, memory_kib: int) -> dict[str, int]:
    """What a domain's processes may take together, by cgroup controller: bytes, number."""
    return {"memory": (memory_kib + RESERVED_KIB) * 1024, "pids": _processes(kind)}


def _processes(kind: Kind) -> int:
    return PROGRAM_PROCESSES_MAX if kind is Kind.PROGRAM else PROCESSES_MAX
