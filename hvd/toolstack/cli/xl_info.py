"""What `xl info` says of a host (xl(1)), said of this one; what only a hypervisor on bare metal has is left out."""

from __future__ import annotations

import os
from typing import Any

_VERSION = (4, 17, "-hvd")
"""The Xen whose interfaces these are (XenVersion says the same)."""


def xl_info(facts: dict[str, Any]) -> dict[str, str]:
    """By xl's names, in xl's order; `facts` are SysctlPhysinfo's."""
    host = os.uname()
    major, minor, extra = _VERSION
    cpus = sorted(os.sched_getaffinity(0))
    return {
        "host": host.nodename,
        "release": host.release,
        "version": host.version,
        "machine": host.machine,
        "nr_cpus": str(facts["cpus"]),
        "max_cpu_id": str(cpus[-1]),
        "nr_nodes": "1",
        "total_memory": str(facts["memory_kib"] // 1024),
        "free_memory": str(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20),
        "sharing_freed_memory": "0",
        "sharing_used_memory": "0",
        "outstanding_claims": "0",
        "free_cpus": "0",
        "xen_major": str(major),
        "xen_minor": str(minor),
        "xen_extra": extra,
        "xen_version": f"{major}.{minor}{extra}",
        "xen_caps": f"hvd-3.0-{host.machine}",
        "xen_scheduler": "linux",
        "xen_pagesize": "4096",
        "xend_config_format": "4",
    }
