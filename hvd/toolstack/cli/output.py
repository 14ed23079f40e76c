"""What the commands print: lines for people, JSON for programs, errors for both, and the exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvd.toolstack.cluster import LifecycleEvent

FAILED = 1
BAD_INPUT = 2
LINE_CHARACTERS_MAX = 120


def print_json(value: Any) -> None:
    """One JSON document on one line: a stream of them can be read line by line."""
    print_line(json.dumps(value, ensure_ascii=False))


def print_line(text: str) -> None:
    """A line on standard output. A reader that has gone (`| head`) ends the program quietly; so does none at all."""
    if sys.stdout is None:  # closed by whoever started us
        raise SystemExit(FAILED)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, the last one ragged; numbers are right-aligned by whoever makes them."""
    table = [list(headings), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_error(text: str, *, as_json: bool, kind: str = "") -> None:
    """What went wrong, on standard error."""
    if as_json:
        sys.stderr.write(json.dumps({"error": text, "kind": kind}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write("".join(f"hvd: {line}\n" for line in text.splitlines()))
    sys.stderr.flush()


def print_warning(text: str) -> None:
    """What is done without, on standard error, in words whatever the output is."""
    sys.stderr.write(f"hvd: warning: {text}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """A line that a domain chose: whatever a terminal obeys is spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def on_one_line(text: str) -> str:
    """A text that a domain chose, fit for a table: its first line, cut, and nothing that a terminal obeys."""
    first, *more = text.splitlines() or [""]
    shown = printable(first)
    return shown[:LINE_CHARACTERS_MAX] + ("…" if more or len(shown) > LINE_CHARACTERS_MAX else "")


def event_line(event: LifecycleEvent) -> str:
    """One event."""
    at = datetime.fromtimestamp(event.at_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    domid = f" ({event.domid})" if event.domid >= 0 else ""
    whose = f"{event.name}{domid} " if event.name else ""
    detail = f": {on_one_line(event.detail)}" if event.detail else ""
    return f"{at}  {whose}{event.event}{detail}"


def seconds(nanoseconds: int) -> str:
    """A duration, as coarse as it is long."""
    total = nanoseconds / 1e9
    if total < 100:
        return f"{total:.1f}s"
    minutes, rest = divmod(int(total), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
