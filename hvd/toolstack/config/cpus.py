"""On which CPUs something may run, as xl writes it or as a list."""

from __future__ import annotations

import os
import re

from hvd.toolstack.config.problems import shown
from hvd.toolstack.config.table import Table

CPUS_MAX = 1024
_CPU_RANGE = re.compile(r"(\^?)(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


def read_cpus(table: Table) -> list[int]:
    """Its key `cpus`: xl's "0-3,^2", "all,^0" or "all", or a list of numbers and such lines; nothing is all of them.

    In xl each item of a list is one vCPU's. A domain here is one process, which may run on all of them.
    """
    value = table.take("cpus")
    here = set(os.sched_getaffinity(0))
    if value is None or value == "all":
        return []
    items = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    found = [_cpus_in(item, here) for item in items] if len(items) <= CPUS_MAX else []
    cpus = set().union(*(each for each in found if each))
    if not cpus or None in found or not cpus <= here:
        expected = f'a list of CPUs of this machine ({_ranges(sorted(here))}), or xl\'s "0-3,^2"'
        hint = "hvd knows no NUMA nodes" if any("node" in item for item in items if isinstance(item, str)) else ""
        shown_cpus = cpus and None not in found
        table.report.wrong(table.at("cpus"), expected, _ranges(sorted(cpus)) if shown_cpus else shown(value), hint)
        return []
    return [] if value == ["all"] else sorted(cpus)


def _cpus_in(item: object, here: set[int]) -> set[int] | None:
    """Those that a number or a line names; None: it is neither."""
    if not isinstance(item, str):
        return {item} if type(item) is int else None
    cpus: set[int] = set()
    for part in (each.strip() for each in item.split(",")):
        match = _CPU_RANGE.fullmatch(part)
        if match is None and part != "all":
            return None
        span = set(range(int(match[2]), int(match[3] or match[2]) + 1)) if match else here
        cpus = cpus - span if match and match[1] else cpus | span
    return cpus


def _ranges(cpus: list[int]) -> str:
    return ", ".join(str(cpu) for cpu in cpus[:16]) + (", …" if len(cpus) > 16 else "")
