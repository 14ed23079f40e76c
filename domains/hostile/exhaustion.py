"""Attacks on what there is only so much of: descriptors, memory, processes, processor time. What was taken is kept."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import threading
import time
from typing import Any

from hvd.domains.guest import Guest
from hvd.domains.hostile.processes import LIBC, called

KEPT: list[Any] = []
SETPRIORITY = {"x86_64": 141, "aarch64": 140}[os.uname().machine]
SCHED_FIFO = 1
SECRET_BYTES = 16


def descriptors(guest: Guest, count: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    KEPT.extend(os.dup(0) for _ in range(int(count)))


def private_memory(guest: Guest, size: str) -> None:
    KEPT.append(bytearray(int(size)))


def shared_pages(guest: Guest, size: str) -> None:
    """Pages of a shared mapping are no process's own data."""
    pages = mmap.mmap(-1, int(size))
    KEPT.append(pages)
    for page in range(0, len(pages), mmap.PAGESIZE):
        pages[page] = 1


def threads(guest: Guest, count: str) -> None:
    wait = threading.Event()
    for _ in range(int(count)):
        thread = threading.Thread(target=wait.wait, daemon=True)
        thread.start()
        KEPT.append(thread)


def fork_bomb(guest: Guest, count: str) -> None:
    for _ in range(int(count)):
        if os.fork() == 0:
            LIBC.pause()
            os._exit(0)


def spin_in_processes(guest: Guest, count: str) -> str:
    """Each in a session of its own, as the kernel may share CPUs out among sessions (autogroup)."""
    for _ in range(int(count)):
        if os.fork() == 0:
            os.setsid()
            _spin()
    return f"has {count} processes that spin"


def read_disk(guest: Guest, path: str, block_bytes: str, for_s: str) -> str:
    """Blocks of a file from its disk, past the page cache; the first bytes of the last one that there was time for."""
    block = mmap.mmap(-1, int(block_bytes))
    descriptor, until = os.open(path, os.O_RDONLY | os.O_DIRECT), time.monotonic() + float(for_s)
    while time.monotonic() < until and os.readv(descriptor, [block]):
        pass
    return block[:SECRET_BYTES].hex()


def large_file(guest: Guest, path: str, size: str) -> None:
    """Sparse: nothing of it takes room."""
    os.truncate(path, int(size))


def raise_priority(guest: Guest) -> None:
    called(LIBC.syscall(SETPRIORITY, 0, 0, -10, 0, 0, 0))


def real_time(guest: Guest) -> None:
    """With that no other process of its CPU runs while it does."""
    os.sched_setscheduler(0, SCHED_FIFO, os.sched_param(1))


def leave_cpus(guest: Guest) -> None:
    size = 128
    every = (ctypes.c_ubyte * size)(*[255] * size)
    called(LIBC.sched_setaffinity(0, size, every))


def spin(guest: Guest, count: str) -> None:
    """For ever, in so many threads."""
    guest.runtime.store.write("data/spinning", "1")
    for _ in range(int(count) - 1):
        threading.Thread(target=_spin, daemon=True).start()
    _spin()


def _spin() -> None:
    while True:
        pass
