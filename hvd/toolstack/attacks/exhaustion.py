"""Attacks on what there is only so much of. How much a domain has taken is counted from outside."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvd.toolstack.attacks.arena import Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Seen
from hvd.toolstack.attacks.layers import IS_ROOT, Act, attacks_on
from hvd.toolstack.cluster import Domain

MIB = 1 << 20
DESCRIPTORS = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 3 // 4)
THREADS, PROCESSES = 100, 600
MEMORY = 1024 * MIB
SHARED = 600 * MIB
FILE = 1025 * MIB
TAKING_S, LOOK_EVERY_S = 60.0, 1.0
"""For one fork more on a busy machine, and to say so."""


def _taken(function: str, wanted: int, count: Callable[[int], int], unit: str, **fields: Any) -> Act:
    """More than it is to have, as the host counts it. One that is dead has nothing."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        domain = arena.domain(f"exhaustion.{function}", wanted, off=off, **fields)
        told = _when_it_takes_no_more(arena, domain, count)
        arena.note_sandbox(domain)
        pid = domain.pid
        taken = count(pid) if pid else 0
        what = f"it has {taken:,} {unit}"  # of descriptors: it has room for so many
        return harm(what) if taken >= wanted and told.startswith("did") else harmless(f"{told}; {what}")

    return act


def _when_it_takes_no_more(arena: Arena, domain: Domain, count: Callable[[int], int]) -> str:
    """What came of it. Whoever goes on taking is waited for, as slowly as a busy machine lets it."""
    taken, until = -1, time.monotonic() + TAKING_S
    while True:
        with contextlib.suppress(TimeoutError):
            return arena.outcome(domain, LOOK_EVERY_S)
        before, taken = taken, count(domain.pid or 0)
        if taken > before:
            until = time.monotonic() + TAKING_S
        if time.monotonic() > until:
            raise TimeoutError(f"{domain.name} has {taken:,}, takes no more and does not say what came of it")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _descriptors(pid: int) -> int:
    """/proc/PID/fd of an opaque process is root's alone; its size is not."""
    return _status(pid, "FDSize")


def _private(pid: int) -> int:
    return _status(pid, "VmData") * 1024


def _shared(pid: int) -> int:
    return _status(pid, "RssShmem") * 1024


def _threads(pid: int) -> int:
    return _status(pid, "Threads")


def _processes(pid: int) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def _crowd_out(arena: Arena, off: tuple[str, ...]) -> Seen:
    """What a process of the host's has of the CPU that they spin on."""
    domain = arena.domain("exhaustion.spin_in_processes", SPINNERS, off=off, sandbox="program", cpus=[FIRST_CPU])
    told = arena.outcome(domain)
    arena.note_sandbox(domain)
    done = subprocess.run([sys.executable, "-c", SPIN, str(FIRST_CPU)], capture_output=True, text=True, check=True)
    share = float(done.stdout)
    what = f"{told}; a process of the host's has {share:.0%} of that CPU"
    return harm(what) if share < SHARE_LEAST else harmless(what)


def _read_disk(arena: Arena, off: tuple[str, ...]) -> Seen:
    """How much it had of the disk in the time that it took is told by what stands at the start of the last block."""
    with tempfile.NamedTemporaryFile(dir=ON_DISK) as image:
        blocks = [os.urandom(BLOCK) for _ in range(BLOCKS)]
        image.write(b"".join(blocks))
        image.flush()
        os.fsync(image.fileno())
        os.fchmod(image.fileno(), 0o644)
        began = time.monotonic()
        told = arena.attack("exhaustion.read_disk", image.name, BLOCK, READS_S, off=off, paths=[image.name],
                            io_bps=DISK_BPS)  # fmt: skip
        elapsed_s = time.monotonic() - began
    secrets = {block[:SECRET_BYTES].hex(): number for number, block in enumerate(blocks, 1)}
    read = secrets.get(told.removeprefix("did "), 0) * BLOCK
    times = read / elapsed_s / DISK_BPS
    what = f"it has read {read >> 10:,} KiB of its disk, at {times:.1f} times its bound"
    return harm(what) if times > TIMES_MOST else harmless(what if read else told)


def _file(arena: Arena, off: tuple[str, ...]) -> Seen:
    path = arena.home / "large"
    path.write_bytes(b"")
    path.chmod(0o666)
    told = arena.attack("exhaustion.large_file", path, FILE, off=off, paths=[f"{path}:w"])
    size = path.stat().st_size
    path.unlink()
    return harm(f"the file has {size:,} bytes") if size >= FILE else harmless(f"{told}; the file has {size:,} bytes")


def _is_on_disk(path: str) -> bool:
    """Not in memory, nor on another host."""
    if not Path(path).is_dir():
        return False
    device = Path(path).stat().st_dev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists()


def _watched(function: str, changed: Callable[[Domain], str], **fields: Any) -> Act:
    """What the scheduler has of it from outside."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        domain = arena.domain(f"exhaustion.{function}", off=off, **fields)
        told = arena.outcome(domain)
        arena.note_sandbox(domain)
        what = changed(domain)
        return harm(what) if what else harmless(told)

    return act


def _priority(domain: Domain) -> str:
    value = os.getpriority(os.PRIO_PROCESS, domain.pid or 0)
    return f"its nice value is {value}" if value < 0 else ""


def _policy(domain: Domain) -> str:
    return "it is scheduled as real time" if os.sched_getscheduler(domain.pid or 0) == os.SCHED_FIFO else ""


def _cpus(domain: Domain) -> str:
    cpus = os.sched_getaffinity(domain.pid or 0)
    return f"it runs on CPUs {sorted(cpus)}" if len(cpus) > 1 else ""


SPINNERS, SHARE_LEAST = 60, 0.05
SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
began, until = time.process_time(), time.monotonic() + 1
while time.monotonic() < until:
    pass
print(time.process_time() - began)
"""
SHARES = Path("/sys/fs/cgroup/cpu/cpu.shares")
"""Where it is there CPUs are shared out among groups; of version 2 we use no such thing."""
FIRST_CPU = min(os.sched_getaffinity(0))
SEVERAL_CPUS = len(os.sched_getaffinity(0)) > 1
CPU_GROUP = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
"""Where it is there, a domain's control group forbids real time, whatever layers are off."""
BLOCK, BLOCKS, READS_S, SECRET_BYTES = 256 << 10, 128, 1.5, 16
DISK_BPS, TIMES_MOST = 1 << 20, 3
ON_DISK = next((path for path in (tempfile.gettempdir(), "/var/tmp") if _is_on_disk(path)), None)
"""Where a file of ours would be; None where no disk is ours to write to."""
UID = ("uid",) if IS_ROOT else ()
ATTACKS: list[Attack] = [
    *attacks_on("exhausting descriptors", ("limits",),
                _taken("descriptors", DESCRIPTORS, _descriptors, "descriptors")),
    *attacks_on("exhausting memory", ("limits",), _taken("private_memory", MEMORY, _private, "bytes"),
                also_off=("cgroups",)),
    *attacks_on("exhausting shared memory", ("cgroups",), _taken("shared_pages", SHARED, _shared, "bytes", memory=64)),
    *attacks_on("exhausting threads", ("limits", "cgroups"), _taken("threads", THREADS, _threads, "threads")),
    *attacks_on("a fork bomb", ("limits", "cgroups"),
                _taken("fork_bomb", PROCESSES, _processes, "processes", sandbox="program", memory=4096)),
    *(attacks_on("crowding others out of a CPU", ("cgroups",), _crowd_out) if SHARES.exists() else []),
    *(attacks_on("crowding others out of a disk", ("cgroups",), _read_disk) if ON_DISK else []),
    *attacks_on("filling a disk", ("limits",), _file),
    *attacks_on("raising its priority", ("capabilities", "seccomp"), _watched("raise_priority", _priority),
                also_off=UID, as_root=True),
    *([] if CPU_GROUP.exists() else attacks_on(
        "real-time scheduling", ("capabilities",), _watched("real_time", _policy), also_off=UID, as_root=True)),
    *(attacks_on("leaving its CPUs", ("seccomp",), _watched("leave_cpus", _cpus, cpus=[FIRST_CPU]))
      if SEVERAL_CPUS else []),
]  # fmt: skip
