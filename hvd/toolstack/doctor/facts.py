"""Looks at this machine once and writes down what judgement.py needs to know; it judges nothing."""

import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.toolstack.doctor.trials import answer_all, landlock_abi
from hvd.transport.cgroups import controllers_of, hierarchies, may_make_groups, topmost

RUN_DIR_VARIABLE = "HVD_RUN_DIR"
_CLOCK_READINGS = 2000
_SYSCTLS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
    "fs/pipe-user-pages-soft",
    "fs/pipe-user-pages-hard",
)

Pair = tuple[int, int]
"""A soft and a hard limit; RLIM_INFINITY is -1."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen. A sysctl or file that is not there is simply absent or empty."""

    system: str
    release: str
    architecture: str
    implementation: str
    python: tuple[int, ...]
    cpus: int
    clock_source: str
    clock_ns: int
    """What one reading of the clock takes."""
    is_root: bool
    run_dir: str
    answers: dict[str, int]
    """Every trial's errno."""
    landlock: int
    sandbox: dict[str, str]
    """The layers that a domain's sandbox would lack here, with the reasons."""
    descriptors: Pair
    locked_bytes: Pair
    processes: Pair
    sysctls: dict[str, str]
    cgroups: dict[str, bool]
    """Each controller, `v1 cpu` or `v2 cpu`, and whether this process may make groups in it; `v2` alone has none."""


def look(run_dir: str | None = None) -> Facts:
    """The facts of this machine for a cluster in `run_dir` (default: HVD_RUN_DIR, or below XDG_RUNTIME_DIR)."""
    run_dir = run_dir or os.environ.get(RUN_DIR_VARIABLE) or _default_run_dir()
    return Facts(
        system=platform.system(),
        release=platform.release(),
        architecture=platform.machine(),
        implementation=platform.python_implementation(),
        python=sys.version_info[:3],
        cpus=len(os.sched_getaffinity(0)),
        clock_source=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        clock_ns=_clock_ns(),
        is_root=os.geteuid() == 0,
        run_dir=run_dir,
        answers=answer_all(run_dir),
        landlock=landlock_abi(),
        sandbox=lacking_here(),
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE),
        locked_bytes=resource.getrlimit(resource.RLIMIT_MEMLOCK),
        processes=resource.getrlimit(resource.RLIMIT_NPROC),
        sysctls={name: value for name in _SYSCTLS if (value := _read(f"/proc/sys/{name}"))},
        cgroups=cgroups_of(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo"), _read, may_make_groups),
    )


def cgroups_of(
    own: str, mounts: str, read: Callable[[str], str], may_make: Callable[[str], bool]
) -> dict[str, bool]:
    """Controllers by version, `v1 cpu` or `v2 cpu`, and whether this process may make groups in them."""
    found: dict[str, bool] = {}
    for hierarchy in hierarchies(own, mounts, read):
        labels = [f"v{hierarchy.version} {name}" for name in controllers_of(hierarchy, may_make, read)] or ["v2"]
        found.update(dict.fromkeys(labels, topmost(hierarchy, may_make) is not None))
    return found


def _default_run_dir() -> str:
    above = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return str(Path(above) / f"hvd-{os.geteuid()}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _clock_ns() -> int:
    start = time.perf_counter_ns()
    for _ in range(_CLOCK_READINGS):
        time.perf_counter_ns()
    return (time.perf_counter_ns() - start) // _CLOCK_READINGS
