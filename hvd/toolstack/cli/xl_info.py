"""What `xl info` says of a host (xl(1)), said of this one: by xl's names, in xl's order.

What only a Xen has that was compiled and booted by somebody is "none": a script finds every name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Fact = str | int
_VERSION = (4, 17, "-hvd")
"""The Xen whose interfaces these are (XenVersion says the same)."""
_NONE = "none"
_CPUS = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")


def xl_info(facts: dict[str, Any]) -> dict[str, Fact]:
    """Numbers as numbers; `facts` are SysctlPhysinfo's."""
    host = os.uname()
    major, minor, extra = _VERSION
    return {
        "host": host.nodename,
        "release": host.release,
        "version": host.version,
        "machine": host.machine,
        "nr_cpus": facts["cpus"],
        "max_cpu_id": max(os.sched_getaffinity(0)),
        "nr_nodes": 1,
        **processor(),
        "virt_caps": "pv",
        "total_memory": facts["memory_kib"] // 1024,
        "free_memory": os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "sharing_freed_memory": 0,
        "sharing_used_memory": 0,
        "outstanding_claims": 0,
        "free_cpus": 0,
        "xen_major": major,
        "xen_minor": minor,
        "xen_extra": extra,
        "xen_version": f"{major}.{minor}{extra}",
        "xen_caps": f"hvd-3.0-{host.machine}",
        "xen_scheduler": "linux",
        "xen_pagesize": 4096,
        "platform_params": _NONE,
        "xen_changeset": _NONE,
        "xen_commandline": _NONE,
        "cc_compiler": _NONE,
        "cc_compile_by": _NONE,
        "cc_compile_domain": _NONE,
        "cc_compile_date": _NONE,
        "build_id": _NONE,
        "xend_config_format": 4,
    }


def processor(cpus: Path = _CPUS, cpuinfo: Path = _CPUINFO) -> dict[str, Fact]:
    """What the kernel says of the first processor; its capabilities as words, where xl has them as bits."""
    topology = cpus / "cpu0/topology"
    threads, package = (_count(_read(topology / name)) for name in ("core_cpus_list", "package_cpus_list"))
    told = dict(_pairs(_read(cpuinfo).partition("\n\n")[0].splitlines()))
    return {
        "cores_per_socket": package // threads if threads else _NONE,
        "threads_per_core": threads or _NONE,
        "cpu_mhz": _mhz(_read(cpus / "cpu0/cpufreq/cpuinfo_max_freq"), told.get("cpu MHz", "")),
        "hw_caps": told.get("flags") or told.get("Features") or _NONE,
    }


def _mhz(khz: str, mhz: str) -> str:
    """To the kHz, as xl has it."""
    return f"{int(khz) / 1000:.3f}" if khz.isdecimal() else mhz or _NONE


def _count(ranges: str) -> int:
    """How many numbers a list as 0-3,8 has."""
    spans = [span.partition("-") for span in ranges.split(",") if span]
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
