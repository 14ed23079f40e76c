"""docs/supervision.md is what the code says."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_script_writes():
    page = runpy.run_path(str(ROOT / "scripts" / "generate_supervision.py"))["page"]
    assert (ROOT / "docs" / "supervision.md").read_text() == page(), "run scripts/generate_supervision.py"
