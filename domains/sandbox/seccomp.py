"""Seccomp: the allow-lists compiled to BPF by libseccomp, which knows every architecture's numbers, and installed.

The zygote compiles; domains are forked with the result and need no library. It is loaded by its soname, as it has no
wheel that is kept: those on PyPI lag years behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from hvd.domains.sandbox.syscalls import ALL_BITS, POLICIES, REFUSED, Only
from hvd.transport._native import seccomp_install
from hvd.transport.sandbox import ACTIONS, Kind

LIBRARY = "libseccomp.so.2"
ABSENT = f"{LIBRARY} is not installed: apt-get install libseccomp2"
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # SCMP_ACT_*
EQUAL, MASKED_EQUAL = 4, 7  # enum scmp_compare
BAD_ARCHITECTURE, OPTIMISE, BINARY_TREE = 2, 8, 2  # enum scmp_filter_attr; CTL_OPTIMIZE's level 2


PROGRAMS_ACTION = "eperm"
"""A program that knows nothing of hvd tries what it may not, and goes on without."""


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )  # fmt: skip


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY, use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    return library


@cache
def compiled(kind: str, action: str) -> bytes:
    """The filter of a kind, or of an init, for `seccomp_install`. OSError saying what to install for it."""
    try:
        library = _library()
    except OSError:
        raise OSError(errno.ENOENT, ABSENT) from None
    default = KILL_PROCESS if action == "kill" else ERRNO | errno.EPERM
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    try:
        _checked(library.seccomp_attr_set(context, BAD_ARCHITECTURE, ctypes.c_uint32(KILL_PROCESS)))
        library.seccomp_attr_set(context, OPTIMISE, ctypes.c_uint32(BINARY_TREE))  # before 2.5 there is a list only
        policy = POLICIES[kind]
        for name in sorted(policy.always):
            _add(library, context, name, ALLOW)
        for name, alternatives in policy.only.items():
            for alternative in alternatives:
                _add(library, context, name, ALLOW, *([alternative] if isinstance(alternative, Only) else alternative))
        for name in sorted(policy.feigned):
            _add(library, context, name, ERRNO)
        for name, code in REFUSED.items():
            if default != ERRNO | getattr(errno, code):  # that would be the default's own action, which it refuses
                _add(library, context, name, ERRNO | getattr(errno, code))
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def compile_filters(kinds: Iterable[str]) -> None:
    """For all processes that are forked from this one."""
    for kind in kinds:
        with suppress(OSError):  # each domain says so itself
            compiled(kind, ACTIONS[0])
            if kind == Kind.PROGRAM:
                compiled(kind, PROGRAMS_ACTION)


def install(program: bytes) -> None:
    """For this process and all it will start, for good. Needs no_new_privs."""
    seccomp_install(program)


def _add(library: ctypes.CDLL, context: Any, name: str, action: int, *all_of: Only) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # not on this architecture, or younger than the library
    comparisons = (_Comparison * max(1, len(all_of)))()
    for place, only in enumerate(all_of):
        if only.mask == ALL_BITS:
            comparisons[place] = _Comparison(only.argument, EQUAL, only.value, 0)
        else:
            comparisons[place] = _Comparison(only.argument, MASKED_EQUAL, only.mask, only.value)
    _checked(library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(all_of), comparisons))


def _exported(library: ctypes.CDLL, context: Any) -> bytes:
    descriptor = os.memfd_create("hvd-seccomp", os.MFD_CLOEXEC)
    try:
        _checked(library.seccomp_export_bpf(context, descriptor))
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"{LIBRARY}: {os.strerror(-result)}")
