"""Attacks on processes of the host: signals, tracing, their memory and their descriptors, by every way there is."""

from __future__ import annotations

import ctypes
import os

from hvd.domains.guest import Guest

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long
LIBC.syscall.argtypes = [ctypes.c_long] * 7
LIBC.syscall.restype = ctypes.c_long
PTRACE_POKEDATA, PTRACE_ATTACH, PTRACE_DETACH, ANY_CHILD = 5, 16, 17, 0x40000000
PIDFD_OPEN, PIDFD_GETFD = 434, 438
OURS = b"attacked"


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def called(result: int) -> int:
    """A system call's result; OSError with its errno if it failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def kill(guest: Guest, pid: str) -> None:
    os.kill(int(pid), 9)


def trace(guest: Guest, pid: str, address: str) -> None:
    """Stop it and write its memory."""
    called(LIBC.ptrace(PTRACE_ATTACH, int(pid), None, None))
    os.waitpid(int(pid), ANY_CHILD)
    called(LIBC.ptrace(PTRACE_POKEDATA, int(pid), int(address), int.from_bytes(OURS, "little")))
    called(LIBC.ptrace(PTRACE_DETACH, int(pid), None, None))


def write_memory(guest: Guest, pid: str, address: str) -> None:
    """process_vm_writev, which process_vm_readv stands or falls with."""
    ours = ctypes.create_string_buffer(OURS, len(OURS))
    here = _Vector(ctypes.addressof(ours), len(OURS))
    there = _Vector(int(address), len(OURS))
    called(LIBC.process_vm_writev(int(pid), ctypes.byref(here), 1, ctypes.byref(there), 1, 0))


def read_memory(guest: Guest, pid: str, address: str, size: str) -> str:
    """process_vm_readv: what is there."""
    found = ctypes.create_string_buffer(int(size))
    here, there = _Vector(ctypes.addressof(found), int(size)), _Vector(int(address), int(size))
    called(LIBC.process_vm_readv(int(pid), ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
    return found.raw.decode()


def write_proc_mem(guest: Guest, pid: str, address: str) -> None:
    with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
        memory.seek(int(address))
        memory.write(OURS)


def steal_descriptor(guest: Guest, pid: str, number: str) -> None:
    """pidfd_getfd, and write what it is open on."""
    pidfd = called(LIBC.syscall(PIDFD_OPEN, int(pid), 0, 0, 0, 0, 0))
    stolen = called(LIBC.syscall(PIDFD_GETFD, pidfd, int(number), 0, 0, 0, 0))
    os.pwrite(stolen, OURS, 0)


def open_descriptor(guest: Guest, pid: str, number: str) -> None:
    """Another's descriptor through /proc."""
    descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)
    os.pwrite(descriptor, OURS, 0)
