"""Tries what changes the process that tries it: namespaces, a system call filter, a network device in a namespace.

trials.py runs this file as a script, with the standard library alone. It prints one JSON object, trial -> errno (0: it
works), and whatever it made ends with it.
"""

import ctypes
import errno
import fcntl
import json
import os
import struct
from collections.abc import Callable

NEWNS, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
BPF_RETURN, SECCOMP_RET_ALLOW = 0x06, 0x7FFF0000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000

libc = ctypes.CDLL(None, use_errno=True)


def attempt(trial: Callable[[], None]) -> int:
    """The errno a trial fails with, 0 if it does not."""
    try:
        trial()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def attempt_in_fork(trial: Callable[[], None]) -> int:
    """The same in a child, which a trial may change for good; a child that is killed was not permitted to."""
    pid = os.fork()
    if pid == 0:
        os._exit(attempt(trial))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else errno.EPERM


def checked(result: int) -> None:
    """Raise the error of a C call that returned -1."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter_user_namespace() -> None:
    """And be there who we are here."""
    uid, gid = os.geteuid(), os.getegid()
    checked(libc.unshare(NEWUSER))
    for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as handle:
            handle.write(line)


def start_first_process() -> None:
    """The next child is process 1 of a PID namespace."""
    checked(libc.unshare(NEWPID))

    def be_first() -> None:
        if os.getpid() != 1:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if code := attempt_in_fork(be_first):
        raise OSError(code, os.strerror(code))


def enter_network_namespace() -> None:
    checked(libc.unshare(NEWNET))


def make_tap() -> None:
    """A TAP device in a network namespace of its own, which takes it along when it ends."""
    enter_network_namespace()
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TAP | IFF_NO_PI))


def mount_empty_root() -> None:
    checked(libc.unshare(NEWNS))
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    checked(libc.mount(b"none", b"/", b"tmpfs", ctypes.c_ulong(0), None))


def filter_system_calls() -> None:
    """With a filter of one instruction that lets everything pass."""
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW), 8)
    program = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(instruction)))
    zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, one, zero, zero, zero))
    checked(libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, zero, zero))


def main() -> None:
    """Root that may not make a user namespace may still make the others: each is tried whatever the first one said."""
    answers = {
        "seccomp": attempt_in_fork(filter_system_calls),
        "user_namespace": attempt(enter_user_namespace),
        "pid_namespace": attempt_in_fork(start_first_process),
        "network_namespace": attempt_in_fork(enter_network_namespace),
        "tap": attempt_in_fork(make_tap),
        "empty_root": attempt_in_fork(mount_empty_root),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
