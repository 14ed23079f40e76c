"""On which CPUs something may run, as xl writes it or as a list."""

from __future__ import annotations

import os
import re

from hvd.toolstack.config.problems import shown
from hvd.toolstack.config.table import Table

CPUS_MAX = 1024
_CPU_RANGE = re.compile(r"(\^?)(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


def read_cpus(table: Table) -> list[int]:
    """Its key `cpus`: a list of numbers, or xl's "0-3,^2"; "all" is the empty list, and so is nothing."""
    value = table.take("cpus")
    here = sorted(os.sched_getaffinity(0))
    expected = f'a list of CPUs of this machine ({_ranges(here)}), or xl\'s "0-3,^2"'
    if value is None or value == "all":
        return []
    if isinstance(value, str):
        cpus = _cpu_line(value)
    else:
        numbers = isinstance(value, list) and len(value) <= CPUS_MAX and all(type(cpu) is int for cpu in value)
        cpus = set(value) if numbers and isinstance(value, list) else None
    if not cpus or not cpus <= set(here):
        found = _ranges(sorted(cpus)) if cpus else shown(value)
        table.report.wrong(table.at("cpus"), expected, found)
        return []
    return sorted(cpus)


def _cpu_line(line: str) -> set[int] | None:
    cpus: set[int] = set()
    for part in line.split(","):
        match = _CPU_RANGE.fullmatch(part.strip())
        if not match:
            return None
        span = set(range(int(match[2]), int(match[3] or match[2]) + 1))
        cpus = cpus - span if match[1] else cpus | span
    return cpus


def _ranges(cpus: list[int]) -> str:
    return ", ".join(str(cpu) for cpu in cpus[:16]) + (", …" if len(cpus) > 16 else "")
