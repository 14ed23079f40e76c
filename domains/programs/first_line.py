"""A guest that notes when its first line ran and ends: what a domain's creation is timed by. Argument: the file to note it in."""

from __future__ import annotations

import time
from pathlib import Path

from hvd.domains.guest import Guest


def main(guest: Guest) -> None:
    first_line_ns = time.monotonic_ns()
    Path(guest.args[0]).write_text(str(first_line_ns))
