"""How long `hvd up` takes from the start of its process: the real command, in directories of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hvd.toolstack.bench.figures import Figure, Goal
from hvd.transport.errors import HvdError

DEADLINE_S = 60.0


def measure_boots(directory: Path, count: int, tell: Callable[[str], None]) -> list[Figure]:
    """dom0 alone. The kernel rounds a process's start down to 10 ms: what is shown is up to 10 ms too much."""
    broker_ms, dom0_ms = [], []
    for number in range(count):
        tell(f"boot {number + 1} of {count}")
        environment = os.environ | {"HVD_RUN_DIR": str(directory / f"boot-{number}")}
        try:
            told = _hvd("up", "-d", "--timings", "--json", environment=environment)
        finally:
            _hvd("down", environment=environment)
        timings = json.loads(told.splitlines()[-1])["timings_ms"]
        broker_ms.append(timings["broker ready"])
        dom0_ms.append(timings["dom0's first line"])
    return [
        Figure("hvd up to broker ready", "ms", broker_ms, (Goal("p50", 150.0),)),
        Figure("hvd up to dom0's first line", "ms", dom0_ms, (Goal("p50", 250.0),)),
    ]


def _hvd(*arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "hvd", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        raise HvdError(f"hvd {' '.join(arguments)} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
