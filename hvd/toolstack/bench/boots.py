"""How long `hvd up` takes from the start of its process: the real command, in directories of its own."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from hvd.toolstack.bench.figures import Figure, Goal
from hvd.transport.errors import HvdError
from hvd.transport.run_dir import start_time

DEADLINE_S = 60.0
GUESTS = 6
IMAGE_BYTES = 1 << 20
PACKAGES = ("hvd", "hvd.domains", "hvd.transport", "zmq", "msgpack", "typer", "structlog")
"""What is loaded in a boot; in a working tree two of them are links, which compileall does not follow."""


def compile_packages() -> None:
    """What an installer does. Where Python may not write bytecode each `hvd` would compile itself anew: 0.3 s."""
    for directory in _directories():
        compileall.compile_dir(directory, quiet=2)


    for module in sys.modules.values():
        if module.__name__.startswith("_editable_") and module.__file__:  # what finds a working tree's packages
            compileall.compile_file(module.__file__, quiet=2)


def _directories() -> Iterator[str]:
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is not None:
            yield from spec.submodule_search_locations or ()


def measure_boots(directory: Path, count: int, tell: Callable[[str], None]) -> list[Figure]:
    """dom0 alone."""
    compile_packages()
    boots = []
    for number in range(count):
        tell(f"boot {number + 1} of {count}")
        boots.append(_boot(directory / f"boot-{number}"))
    return [
        Figure(f"hvd up to {name}", "ms", [boot[step] for boot in boots], (Goal("p50", most),))
        for name, step, most in (
            ("broker ready", "broker ready", 100.0),
            ("dom0's first line", "dom0's first line", 150.0),
            ("dom0 ready", "every domain ready", 150.0),
        )
    ]


def measure_cluster_boots(directory: Path, count: int, tell: Callable[[str], None]) -> Figure:
    """Eight domains: dom0, a driver domain, six guests whose disks it serves, each ready when it has its disk."""
    file, samples = cluster_file(directory), []
    for number in range(count):
        tell(f"boot {number + 1} of {count} of eight domains")
        samples.append(_boot(directory / f"cluster-{number}", str(file))["every domain ready"])
    return Figure("hvd up to eight domains connected", "ms", samples, (Goal("p50", 500.0),))


def measure_list(run_dir: Path, count: int, tell: Callable[[str], None]) -> Figure:
    """What scripts call in loops, from the order to make its process to its end."""
    environment, samples = os.environ | {"HVD_RUN_DIR": str(run_dir)}, []
    for number in range(count):
        tell(f"list {number + 1} of {count}")
        began = time.perf_counter()
        _hvd("list", environment=environment)
        samples.append((time.perf_counter() - began) * 1e3)
    return Figure("hvd list, the whole process", "ms", samples, (Goal("p50", 150.0),))


def cluster_file(directory: Path) -> Path:
    """The cluster of `measure_cluster_boots`."""
    lines = ["[[domain]]", 'name = "storage"', 'kernel = "hvd:driver_domain"', "driver_domain = true"]
    for number in range(GUESTS):
        image = directory / f"guest-{number}.img"
        image.write_bytes(bytes(IMAGE_BYTES))
        spec = f"format=raw,vdev=xvda,access=rw,backend=storage,target={image}"
        lines += ["", "[[domain]]", f'name = "guest-{number}"', 'kernel = "hvd:idle"', f'disk = ["{spec}"]']
    file = directory / "eight.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _boot(run_dir: Path, *file: str) -> dict[str, float]:
    """Milliseconds from the order to make its process to each step."""
    environment = os.environ | {"HVD_RUN_DIR": str(run_dir)}
    try:
        told, late_ms = _hvd("up", *file, "-d", "--timings", "--json", environment=environment)
    finally:
        _hvd("down", "--grace", "0", environment=environment)
    timings: dict[str, float] = json.loads(told.splitlines()[-1])["timings_ms"]
    return {step: at + late_ms for step, at in timings.items()}


def _hvd(*arguments: str, environment: dict[str, str]) -> tuple[str, float]:
    """What it prints; and by how much later than we ordered it the kernel says that it started, in milliseconds.

    The kernel tells that to 10 ms, rounded down: mostly it is earlier.
    """
    command = [sys.executable, "-m", "hvd", *arguments]
    ordered_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as hvd:
        started_s = (start_time(hvd.pid) or 0) / os.sysconf("SC_CLK_TCK")
        try:
            told, complaint = hvd.communicate(timeout=DEADLINE_S)
        finally:
            hvd.kill()
    if hvd.returncode:
        raise HvdError(f"hvd {' '.join(arguments)} ended with status {hvd.returncode}: {complaint.strip()}")
    return told, (started_s - ordered_s) * 1000
