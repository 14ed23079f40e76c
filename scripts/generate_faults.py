#!/usr/bin/env python3
"""Writes the tables of docs/faults.md from the registry of faults. With --check it only says whether they are.

Example:
  .venv/bin/python scripts/generate_faults.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from hvd.toolstack.faults.fault import Fault
from hvd.toolstack.faults.registry import FAMILIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "faults.md"
BEGIN, END = "<!-- the tables: scripts/generate_faults.py -->", "<!-- end of the tables -->"


def tables() -> str:
    """One for each family."""
    parts = []
    for title, faults in FAMILIES.items():
        rows = "\n".join(map(row, faults))
        parts.append(f"### {title}\n\n| fault | what | lasts | witness | what is to happen | undone by |\n"
                     f"|---|---|---|---|---|---|\n{rows}\n")  # fmt: skip
    return "\n".join(parts)


def row(fault: Fault) -> str:
    """One fault."""
    takes = "; ".join(f"`{p.name}` {p.summary}, {p.least} to {p.most} ({p.default})" for p in fault.parameters)
    what = f"{fault.summary}. {takes}" if takes else fault.summary
    lasts = "" if fault.for_s is None else f"{fault.for_s:g} s"
    return f"| `{fault.name}` | {what} | {lasts} | {fault.witness} | {fault.expected} | {fault.undone_by} |"


def page(before: str) -> str:
    """The page with the tables as they are now."""
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables()}\n{END}{tail}"


if __name__ == "__main__":
    from generated_page import main

    sys.exit(main(PAGE, page, __doc__))
