"""How long `hvd up` takes from the start of its process: the real command, in directories of its own."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hvd
from hvd.toolstack.bench.figures import Figure, Goal
from hvd.transport.errors import HvdError

DEADLINE_S = 60.0
GUESTS = 6
IMAGE_BYTES = 1 << 20
ROUNDED = "the kernel rounds a process's start down to 10 ms: up to so much too much"


def compile_package() -> None:
    """What an installer does. Where Python may not write bytecode each `hvd` would compile itself anew: 0.2 s."""
    compileall.compile_dir(str(Path(hvd.__file__).parent), quiet=2)


def measure_boots(directory: Path, count: int, tell: Callable[[str], None]) -> list[Figure]:
    """dom0 alone."""
    compile_package()
    boots = []
    for number in range(count):
        tell(f"boot {number + 1} of {count}")
        boots.append(_boot(directory / f"boot-{number}"))
    return [
        Figure(f"hvd up to {step}", "ms", [boot[step] for boot in boots], (Goal("p50", most),), ROUNDED)
        for step, most in (("broker ready", 100.0), ("dom0's first line", 150.0))
    ]


def measure_cluster_boots(directory: Path, count: int, tell: Callable[[str], None]) -> Figure:
    """Eight domains: dom0, a driver domain, six guests whose disks it serves, each ready when it has its disk."""
    file, samples = cluster_file(directory), []
    for number in range(count):
        tell(f"boot {number + 1} of {count} of eight domains")
        samples.append(_boot(directory / f"cluster-{number}", str(file))["every domain ready"])
    return Figure("hvd up to eight domains connected", "ms", samples, (Goal("p50", 500.0),), ROUNDED)


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
    """Milliseconds by step."""
    environment = os.environ | {"HVD_RUN_DIR": str(run_dir)}
    try:
        told = _hvd("up", *file, "-d", "--timings", "--json", environment=environment)
    finally:
        _hvd("down", "--grace", "0", environment=environment)
    timings: dict[str, float] = json.loads(told.splitlines()[-1])["timings_ms"]
    return timings


def _hvd(*arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "hvd", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        raise HvdError(f"hvd {' '.join(arguments)} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
