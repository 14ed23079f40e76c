"""Network namespaces to measure in: each is that of a process which does nothing else, and goes with its block."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from hvd.toolstack.bench.peers.peer import Absent
from hvd.transport.errors import HvdError

DEADLINE_S = 60.0


@contextlib.contextmanager
def namespace() -> Iterator[int]:
    """The process that is in it. Absent where there are none for us."""
    if os.geteuid() != 0:
        raise Absent("only root makes network namespaces beside each other")
    with process(["unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"]) as made:
        if told_by(made) != "made":
            raise Absent("no network namespaces here")
        yield made.pid


@contextlib.contextmanager
def process(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Until the end of the block, or of us."""
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def told_by(running: subprocess.Popen[str]) -> str:
    """The next line that it prints; "" when it has ended."""
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")


def inside(pid: int, *command: str, cpus: Sequence[int] = ()) -> list[str]:
    """The command in a namespace, and on these CPUs alone, if any."""
    kept = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
    return ["nsenter", f"--net=/proc/{pid}/ns/net", *kept, *command]


def within(pid: int, script: str, cpus: Sequence[int] = ()) -> str:
    """What a shell's script prints in a namespace. HvdError when it fails."""
    command = inside(pid, "sh", "-c", script, cpus=cpus)
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise HvdError(str(late)) from None
    if done.returncode:
        raise HvdError(done.stderr.strip() or f"{script} ended with status {done.returncode}")
    return done.stdout
