#!/usr/bin/env python3
"""Writes docs/threats.md: every threat that hvd has to survive, with the attacks of `hvd attack` that try it.

Examples:
  .venv/bin/python scripts/generate_threats.py            # write the page
  .venv/bin/python scripts/generate_threats.py --check    # exit status 1 if the page is not what the code says
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from hvd.toolstack.attacks.attack import Attack
from hvd.toolstack.attacks.suite import ATTACKS
from hvd.toolstack.attacks.threats import ELSEWHERE, INSTEAD, THREATS, Threat, advisories, attacks_on

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "threats.md"
HEADINGS = ("case", "threat", "advisory", "attack or test", "stopped by")


def page() -> str:
    """The whole page."""
    parts = [
        "# Threats",
        "What hvd has to survive: what became known of Xen, its backends and its stores, and what was found for this\n"
        "design. Each case is tried by a hostile domain, and each attack has a control that works\n"
        "([attacks.md](attacks.md)). An advisory's number stands in the names of the attacks that try it, which\n"
        "`hvd attack --only XSA-39` carries out. `scripts/generate_threats.py` writes this page from the code; a test\n"
        "sees that no case and no number is without an attack, or a reason and a test.",
    ]
    for area, cases in groupby(THREATS.items(), lambda case: case[1].area):
        rows = [row for number, threat in cases for row in rows_of(number, threat)]
        parts += [f"## {area}", table(rows)]
    parts += [
        "## What hvd has instead",
        "Some advisories are about a mechanism that hvd lacks. What corresponds to it is attacked under their number.",
        "\n".join(f"- **XSA-{number}**: {what}." for number, what in sorted(INSTEAD.items())),
    ]
    return "\n\n".join(parts) + "\n"


def rows_of(number: int, threat: Threat) -> list[tuple[str, ...]]:
    """One for each attack, and for each test that stands in its place or beside it."""
    shown = [(numbers_of(attack, threat), attack.name, attack.layer) for attack in attacks_on(threat, ATTACKS.values())]
    for advisory in threat.advisories:
        if advisory in ELSEWHERE:
            shown.append((f"XSA-{advisory}", f"`{ELSEWHERE[advisory].test}`", ELSEWHERE[advisory].why))
    shown += [("", f"`{test}`", "") for test in threat.tests]
    first, *others = shown
    return [(str(number), threat.what, *first), *(("", "", *each) for each in others)]


def numbers_of(attack: Attack, threat: Threat) -> str:
    """Of the advisories in its name those that the threat is about, if any is."""
    numbers = advisories(attack.name)
    return ", ".join(f"XSA-{number}" for number in sorted(numbers & {*threat.advisories} or numbers))


def table(rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEADINGS, tuple("---" for _ in HEADINGS), *rows))


if __name__ == "__main__":
    from generated_page import main

    sys.exit(main(PAGE, lambda _: page(), __doc__))
