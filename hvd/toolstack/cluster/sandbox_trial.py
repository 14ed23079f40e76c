"""Tries a domain's sandbox on this machine without a cluster, and refuses where a required layer lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from hvd.toolstack.config.problems import ConfigError, Problem, Report
from hvd.toolstack.config.sandboxes import check_layers
from hvd.transport.sandbox import LAYERS

OPTION = "--require-sandbox"
DEADLINE_S = 30.0


def lacking_here() -> dict[str, str]:
    """The layers that a guest's sandbox would lack here, with the reasons; all of them where none could be tried."""
    command = [sys.executable, "-P", "-m", "hvd", "sandbox"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_S)
        answer = json.loads(done.stdout)
        return {str(name): str(reason) for name, reason in answer.items()}
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return dict.fromkeys(LAYERS, f"the trial failed: {error}")


def require_layers(text: str) -> list[str]:
    """The layers of a comma-separated list. ConfigError names those that there are not, and what lacks here and why."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    report = Report("command line", "")
    if not names:
        report.wrong((OPTION,), "at least one layer (`hvd info --sandbox`)", repr(text))
    check_layers(report, (OPTION,), names)
    report.raise_if_wrong()
    problems = problems_of(names, lacking_here())
    if problems:
        raise ConfigError(problems)
    return names


def problems_of(names: Sequence[str], lacking: dict[str, str]) -> list[Problem]:
    """One for each layer that is required and lacks."""
    return [
        Problem("command line", OPTION, f"the layer {name}", f"none on this machine: {lacking[name]}")
        for name in names
        if name in lacking
    ]
