"""What the scripts share that write a page of docs/: the page is written, or compared where it is to be checked."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def main(path: Path, page: Callable[[str], str], description: str | None) -> int:
    """The exit status. `page` makes the page of what it is now, which is nothing if there is none."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page is out of date")
    options = parser.parse_args()
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = page(before)
    if options.check:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0
