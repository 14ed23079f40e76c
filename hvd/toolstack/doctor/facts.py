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
        cgroups=cgroups_of(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo"), _read, _may_make_groups),
    )


def cgroups_of(
    own: str, mounts: str, read: Callable[[str], str], may_make_groups: Callable[[str], bool]
) -> dict[str, bool]:
    """Controllers by version from the texts of /proc/self/cgroup and mountinfo (cgroups(7))."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        paths.update({name: path for name in names.split(",") if not name.startswith("name=")})
    found: dict[str, bool] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            unified = kind[0] == "cgroup2"
            for controller in [""] if unified else [option for option in kind[2].split(",") if option in paths]:
                directory = fields[4] + _below(paths.get(controller, "/"), fields[3])
                labels = _unified_labels(read(f"{directory}/cgroup.controllers")) if unified else [f"v1 {controller}"]
                found.update(dict.fromkeys(labels, may_make_groups(directory)))
    return found


def _unified_labels(controllers: str) -> list[str]:
    return [f"v2 {controller}" for controller in controllers.split()] or ["v2"]


def _below(path: str, root: str) -> str:
    """The path within a mount that shows only what is under `root`."""
    relative = path.removeprefix(root.rstrip("/"))
    return "" if relative == "/" else relative


def _may_make_groups(directory: str) -> bool:
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)


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
