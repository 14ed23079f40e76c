"""docs/campaign.md says what its report says."""

import json
import re
import runpy
from pathlib import Path

from hvd.toolstack.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "generate_campaign.py"))


def test_the_tables_are_what_the_script_writes():
    page = (ROOT / "docs" / "campaign.md").read_text()
    assert SCRIPT["BEGIN"] in page and SCRIPT["END"] in page
    assert page == SCRIPT["page"](page), "run scripts/generate_campaign.py"


def test_every_fault_that_was_injected_is_told():
    told = json.loads((ROOT / "docs" / "campaign" / "report.json").read_text())
    tables = SCRIPT["tables"](told)
    assert all(f"| {name} |" in tables for name in told["faults"])
    assert f"{told['totals']['injected']:,} of {len(told['faults'])} kinds" in tables


def test_every_fault_that_there_is_is_told_of_be_it_as_one_that_was_not_injected():
    tables = SCRIPT["tables"](json.loads((ROOT / "docs" / "campaign" / "report.json").read_text()))
    assert [name for name in FAULTS if not re.search(rf"[ |]{name}[ ,]", tables)] == []
