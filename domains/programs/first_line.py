"""A guest that notes in a file (its argument) when its first line ran: what a domain's creation is timed by."""

from __future__ import annotations

import time
from pathlib import Path

from hvd.domains.guest import Guest


def main(guest: Guest) -> None:
    first_line_ns = time.monotonic_ns()
    Path(guest.args[0]).write_text(str(first_line_ns))
