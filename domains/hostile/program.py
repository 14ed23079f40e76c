"""Hostile code that the system's Python runs as a program, with nothing of hvd: `program.py FUNCTION ARGUMENT...`.

Its last line says what came of it, as that of the other hostile domains does in XenStore.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
PATHS = re.compile(rb"/[!-~]{4,100}")
REGION_BYTES_MAX = 64 << 20
TOLD_CHARACTERS_MAX = 60_000


def called(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read_init() -> str:
    """Paths that are in its parent's memory."""
    found: set[bytes] = set()
    init = os.getppid()
    with open(f"/proc/{init}/maps") as maps, open(f"/proc/{init}/mem", "rb", 0) as memory:
        for line in maps:
            ends, mode = line.split()[:2]
            first, last = (int(end, 16) for end in ends.split("-"))
            if mode.startswith("rw") and last - first <= REGION_BYTES_MAX:
                try:
                    memory.seek(first)
                    found.update(path for path in PATHS.findall(memory.read(last - first)) if b"hvd" in path)
                except OSError:
                    continue
    return " ".join(sorted(path.decode() for path in found))


def trace_init() -> None:
    LIBC.ptrace.argtypes = [ctypes.c_long] * 4
    called(LIBC.ptrace(PTRACE_ATTACH, os.getppid(), 0, 0))
    called(LIBC.ptrace(PTRACE_DETACH, os.getppid(), 0, 0)) if os.waitpid(os.getppid(), 0x40000000) else None


def take_tap() -> str:
    """Open one of the TAPs that its init has, and it has not."""
    for link in Path(f"/proc/{os.getppid()}/fd").iterdir():
        if link.readlink().name == "tun":
            device = os.fstat(os.open(link, os.O_RDWR)).st_rdev
            return f"device {os.major(device)}:{os.minor(device)}"
    raise FileNotFoundError("its init has none")


def kill_init() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.2)


def make_user_namespace() -> None:
    called(LIBC.unshare(CLONE_NEWUSER))


def mount() -> None:
    called(LIBC.mount(b"x", b"/tmp", b"tmpfs", 0, None))


def connect_abstract(name: str) -> None:
    socket.socket(socket.AF_UNIX).connect("\0" + name)


def run_away() -> None:
    """Into child after child, each in a session of its own."""
    if os.fork():
        return
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.001)


def fork_bomb(wanted: str) -> None:
    for _ in range(int(wanted)):
        if os.fork() == 0:
            while True:
                signal.pause()


def main() -> None:
    name, *arguments = sys.argv[1:]
    try:
        told = f"did {globals()[name](*arguments)}"
    except OSError as error:
        told = f"failed {type(error).__name__}: {error}"
    print(f"outcome: {told[:TOLD_CHARACTERS_MAX]}", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
