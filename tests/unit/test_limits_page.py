"""docs/limits.md is what the code says, and each bound on it has a test that is there and is about it."""

import re
import runpy
from pathlib import Path

import pytest

from hvd.transport.limits import LIMITS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "limits.md"
ROWS = re.findall(r"^\| `(\w+)` \|.*\| `(tests/[\w/.]+)(?:::(\w+))?` \|$", PAGE.read_text(), re.MULTILINE)


def test_the_page_is_what_the_script_writes():
    page = runpy.run_path(str(ROOT / "scripts" / "generate_limits.py"))["page"]
    assert PAGE.read_text() == page(), "run scripts/generate_limits.py"


def test_the_page_names_every_limit_of_the_transport():
    assert {name for name, _, _ in ROWS} >= LIMITS.keys()


@pytest.mark.parametrize(("limit", "file", "test"), ROWS, ids=[name for name, _, _ in ROWS])
def test_the_test_of_a_limit_is_there_and_about_it(limit, file, test):
    path = ROOT / file
    assert path.exists(), f"{limit}: there is no {file}"
    text = path.read_text()
    assert f"def {test}(" in text if test else re.search(limit, text, re.IGNORECASE), f"{file} has no test of {limit}"
