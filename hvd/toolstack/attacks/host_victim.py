"""A process of the host that holds what no domain was given, and says on demand what became of it.

Its memory, an unlinked file that it has open, a segment of System V memory, a file, and three listening sockets. It
runs as whoever starts the suite: without root that is the user that the domains run as, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
SIZE = 32
IPC_RMID = 0


class HostVictim:
    """The suite's handle of it. `facts` are what an attacker is told: where everything is, not what is in it."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts: dict[str, Any] = self._line()
        self.secret: str = self.facts.pop("secret")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def dies(self, within_s: float) -> bool:
        """Whether it is dead, or dies in a while: a signal is not delivered the instant it is sent."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def show(self) -> dict[str, Any]:
        """What is in its things now, and how many have connected to its sockets. It is all put right again."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it is dead already
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        segment = LIBC.shmget(self.facts["shm_key"], 0, 0)
        if segment >= 0:
            LIBC.shmctl(segment, IPC_RMID, None)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))


class _Things:
    """In the victim itself."""

    def __init__(self, home: Path) -> None:
        self.secret = secrets.token_hex(SIZE // 2)
        self.memory = ctypes.create_string_buffer(SIZE)
        self.file = tempfile.TemporaryFile(dir=home, buffering=0)  # noqa: SIM115 - for as long as the process lives
        self.path = home / "secret"
        self.key = 0x48564400 + os.getpid() % 65536
        self.segment = LIBC.shmget(self.key, 4096, 0o1600)
        self.shared = LIBC.shmat(self.segment, None, 0)
        self.listeners = {"path": socket.socket(socket.AF_UNIX), "abstract": socket.socket(socket.AF_UNIX),
                          "tcp": socket.socket()}  # fmt: skip
        self.socket_path = home / f"victim-{os.getpid()}"
        name = f"hvd-victim-{os.getpid()}"
        self.listeners["path"].bind(str(self.socket_path))
        self.listeners["abstract"].bind(f"\0{name}")
        self.listeners["tcp"].bind(("127.0.0.1", 0))
        for listener in self.listeners.values():
            listener.listen()
            listener.setblocking(False)
        self.put_right()
        self.facts = {
            "pid": os.getpid(), "address": ctypes.addressof(self.memory), "fd": self.file.fileno(), "size": SIZE,
            "file": str(self.path), "shm_key": self.key, "path": str(self.socket_path), "abstract": name,
            "tcp": self.listeners["tcp"].getsockname()[1], "secret": self.secret,
        }  # fmt: skip

    def put_right(self) -> None:
        whole = self.secret.encode()
        self.memory.raw = whole
        os.pwrite(self.file.fileno(), whole, 0)
        ctypes.memmove(self.shared, whole, SIZE)
        self.path.write_bytes(whole)
        self.path.chmod(0o600)

    def show(self) -> dict[str, Any]:
        whole = self.secret.encode()
        harmed = {
            "memory": self.memory.raw, "fd": os.pread(self.file.fileno(), SIZE, 0),
            "shm": ctypes.string_at(self.shared, SIZE), "file": self.path.read_bytes(),
        }  # fmt: skip
        state: dict[str, Any] = {name: found != whole for name, found in harmed.items()}
        for name, listener in self.listeners.items():
            state[name] = 0
            while True:
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    break
                state[name] += 1
        self.put_right()
        return state


def main() -> None:
    """The victim's process."""
    things = _Things(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(things.facts) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(things.show()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
