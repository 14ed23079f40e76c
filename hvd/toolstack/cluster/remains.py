"""What a machine that was killed has left: processes that are not dead yet, files in its directory."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from hvd.toolstack.cluster.errors import ClusterError
from hvd.toolstack.cluster.run_dirs import open_run_dir
from hvd.transport.cgroups import remove_abandoned
from hvd.transport.run_dir import CONTROL, CORES, DOMAINS, EVENTS, LOCK, LOG, PART, XENSTORED, machine_pid, start_time

DEADLINE_S = 10.0
OUR_NAMES = ("hvd", "python")
"""How the processes of a machine are called; the zygote's children are python until they rename themselves."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What was found and removed."""

    processes: tuple[int, ...]
    files: tuple[str, ...]


def remove_remains(run_dir: Path, *, logs: bool = False) -> Remains:
    """End and remove what an ended machine has left; its logs and cores too if asked.

    ClusterError when a machine runs there.
    """
    directory = open_run_dir(run_dir)
    if directory is None:
        return Remains((), tuple(_groups()))
    try:
        pid = machine_pid(directory)
        if pid is not None:
            raise ClusterError(f"a machine runs in {run_dir} (pid {pid}); end it with `hvd down`")
        processes = _end_processes(run_dir)
        names = [CONTROL, EVENTS, DOMAINS, XENSTORED, LOCK, *([LOG, CORES] if logs else _unfinished_cores(run_dir))]
        files = [name for name in names if _remove(run_dir / name)]
        if logs:
            with contextlib.suppress(OSError):
                run_dir.rmdir()
        return Remains(tuple(processes), (*files, *_groups()))
    finally:
        os.close(directory)


def _groups() -> list[str]:
    """Of every machine that is gone, whatever its directory."""
    return ["control groups"] if remove_abandoned() else []


def _unfinished_cores(run_dir: Path) -> list[str]:
    return [f"{CORES}/{entry.name}" for entry in (run_dir / CORES).glob(f"*{PART}")]


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _end_processes(run_dir: Path) -> list[int]:
    """Its children die with a machine by themselves; see to it, and wait for it."""
    try:
        pid, born = map(int, (run_dir / LOCK).read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return []
    strays = _strays(pid, born)
    until = time.monotonic() + DEADLINE_S
    for stray, pidfd in strays.items():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        gone = select.select([pidfd], [], [], max(0.0, until - time.monotonic()))[0]
        os.close(pidfd)
        if not gone:
            raise ClusterError(f"process {stray} of the machine does not even end by SIGKILL: see ps")
    return list(strays)


def _strays(machine: int, born: int) -> dict[int, int]:
    """The processes of a dead machine's session, with pidfds. A session's number is its own while it has members."""
    if machine <= 1 or start_time(machine) not in (None, born):
        return {}
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _belongs(int(entry.name), machine, born):
            with contextlib.suppress(ProcessLookupError):
                found[int(entry.name)] = os.pidfd_open(int(entry.name))
    return found


def _belongs(pid: int, machine: int, born: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    return fields[0] != "Z" and int(fields[3]) == machine and int(fields[19]) >= born and name.startswith(OUR_NAMES)
