"""Attacks on the rest of the host: its sockets, files, shared memory, name, mounts, and what only privileges give."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

from hvd.domains.guest import Guest
from hvd.domains.hostile.processes import LIBC, OURS, called

LIBC.shmat.restype = ctypes.c_void_p
FAILED = ctypes.c_void_p(-1).value
CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
CLONE_NEWUSER, SIGCHLD = 0x10000000, 17
PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS = 4, 3, 39


def connect_path(guest: Guest, path: str) -> None:
    socket.socket(socket.AF_UNIX).connect(path)


def connect_abstract(guest: Guest, name: str) -> None:
    socket.socket(socket.AF_UNIX).connect(f"\0{name}")


def connect_tcp(guest: Guest, port: str) -> None:
    socket.create_connection(("127.0.0.1", int(port)), 5)


def write_shared_memory(guest: Guest, key: str) -> None:
    """System V's, of others."""
    segment = called(LIBC.shmget(int(key), 0, 0))
    address = LIBC.shmat(segment, None, 0)
    if address in (None, FAILED):
        raise OSError(ctypes.get_errno(), "shmat")
    ctypes.memmove(address, OURS, len(OURS))


def read_file(guest: Guest, path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def write_file(guest: Guest, path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, OURS, 0)


def see_names(guest: Guest) -> str:
    """The host's name."""
    return os.uname().nodename


def see_processes(guest: Guest, pid: str) -> str:
    """How many there are, and whether that one is among them."""
    seen = {entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()}
    return f"sees {len(seen)}" + (f" and {pid}" if pid in seen else "")


def mount(guest: Guest, path: str) -> None:
    called(LIBC.mount(b"hvd-attack", path.encode(), b"tmpfs", 0, None))


def new_namespace(guest: Guest) -> None:
    """Where it would be root, and reach what only root's system calls reach of the kernel."""
    if called(LIBC.syscall(CLONE, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0, 0)) == 0:
        os._exit(0)
    os.wait()


def another_process(guest: Guest) -> None:
    """A guest computes in one process."""
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def memory_of_its_own(guest: Guest) -> None:
    """A memfd is no limit's business but a control group's."""
    called(LIBC.memfd_create(b"more", 0))


def network_socket(guest: Guest) -> None:
    socket.socket(socket.AF_INET)


def rename_host(guest: Guest) -> None:
    socket.sethostname("taken-over")


def be_traceable(guest: Guest) -> None:
    """Whether others of the same user can read this process."""
    if not LIBC.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("nobody else can read it")


def gain_privileges(guest: Guest) -> None:
    """Whether running a program that is set-uid would give it privileges."""
    if LIBC.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0):
        raise OSError("running a program gives no privileges")
