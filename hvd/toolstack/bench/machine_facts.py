"""What the figures were taken on: CPU, kernel, governor, whether the machine is virtual, how busy it was."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine_facts() -> dict[str, str]:
    """Facts by name, as the machine tells them."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": model,
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "governor": governor.read_text().strip() if governor.exists() else "none",
        "virtual": "yes" if "hypervisor" in cpuinfo else "no",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else "not root",
    }
