#!/usr/bin/env python3
"""Writes the tables of docs/campaign.md from docs/campaign/report.json. With --check it only says whether they are.

Example:
  .venv/bin/hvd chaos examples/chaos/campaign.toml --seeds 1-150 --out docs/campaign
  .venv/bin/python scripts/generate_campaign.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hvd.toolstack.faults import FAULTS
from hvd.toolstack.faults.history import BREACHES

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, REPORT = DOCS / "campaign.md", DOCS / "campaign" / "report.json"
BEGIN, END = "<!-- the tables: scripts/generate_campaign.py -->", "<!-- end of the tables -->"
WANTED = 12_500


def tables(told: dict[str, Any]) -> str:
    """What was found beside what was to be, then each fault, then each stage of a recovery."""
    return "\n\n".join([_table(("measure", "found", "goal"), _measures(told)), "### By fault", FAULTS_NOTE,
                        _table(("fault", *FATES, "p50", "p99", "max"), _faults(told)), "### By stage", STAGES_NOTE,
                        _table(("stage", "n", "p50", "p90", "p99", "max"), _stages(told))])  # fmt: skip


FATES = ("injected", "activated", "detected", "recovered")
FAULTS_NOTE = (
    "Milliseconds from the injection until every domain was ready and every workload had gone on; of a fault that "
    "lasts, its\nduration is in them."
)
STAGES_NOTE = "Milliseconds of the recoveries of domains that died, whatever killed them."


def _measures(told: dict[str, Any]) -> list[tuple[str, ...]]:
    totals, operations, durability = told["totals"], told["operations"], told["durability"]
    bystanders, bound, share = told["bystanders"], told["bound_95"], told["recovered_share"]
    factor = bystanders["p99_factor"]
    return [
        ("seeds", told["seeds"], ""),
        ("faults injected", f"{totals['injected']:,} of {len(told['faults'])} kinds", f"{WANTED:,}"),
        ("kinds that it has not", ", ".join(name for name in FAULTS if name not in told["faults"]), ""),
        ("seen to take effect by a witness", f"{totals['activated']:,}", ""),
        ("recovered, of those seen to take effect", "-" if share is None else f"{share:.4%}", "≥ 99.9 %"),
        ("95 % bound of what is not recovered", "-" if bound is None else f"{bound:.3%}", ""),
        ("runs as expected", f"{told['healthy']} of {told['runs']}", "all"),
        ("broker crashes that were not injected", f"{told['broker_crashes']}", "0"),
        ("operations acknowledged", f"{operations['ok']:,}", ""),
        (f"of them {', '.join(BREACHES)}", ", ".join(f"{operations[key]:,}" for key in BREACHES), "0"),
        ("operations that failed", f"{operations['failed']:,}", ""),
        ("of unknown fate, because their domain was killed", f"{operations['unknown']:,}", "never counted as ok"),
        ("runs that leaked anything", f"{told['leaking_runs']}", "0"),
        ("new domains created meanwhile", f"{told['new_domains']}", "all"),
        ("power cuts: images rebuilt, FLUSHes promised, sectors lost",
         ", ".join(f"{durability[key]:,}" for key in ("images", "flushes", "lost")), "0 lost"),
        ("bystanders' operations, failed", f"{bystanders['operations']:,}, {bystanders['failed']}", "0"),
        ("bystanders' p99 with faults over p99 before, by run: p50, max",
         ", ".join(f"{factor[key]:.2f}" for key in ("p50", "max") if key in factor), "reported"),
        ("time of all runs together", f"{told['wall_s'] / 60:.0f} min", ""),
    ]  # fmt: skip


def _faults(told: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{group[fate]:,}" for fate in FATES), *_ranks(group["recovered_ms"], "p50", "p99", "max"))
        for name, group in told["faults"].items()
    ]


def _stages(told: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (stage, f"{found['n']:,}", *_ranks(found, "p50", "p90", "p99", "max"))
        for stage, found in told["stages_ms"].items()
    ]


def _ranks(found: dict[str, float], *ranks: str) -> list[str]:
    return [f"{found[rank]:,.0f}" if found.get(rank, 0) >= 10 else f"{found.get(rank, 0):.3g}" for rank in ranks]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, tuple("---" for _ in headings), *rows))


def page(before: str) -> str:
    """The page with the tables as the report has them."""
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables(json.loads(REPORT.read_text(encoding='utf-8')))}\n\n{END}{tail}"


if __name__ == "__main__":
    from generated_page import main

    sys.exit(main(PAGE, page, __doc__))
