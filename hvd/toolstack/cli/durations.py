"""What a person may give as a number of seconds, or of times: the same for commands and scripts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SECONDS_MAX = 4_294_967.0
"""Seven weeks: what a hypercall carries in milliseconds."""
EXPECTED = f"a number of seconds from 0 to {SECONDS_MAX:.0f}"


def seconds_from(text: str) -> float:
    """Seconds; ValueError says what was expected."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= SECONDS_MAX:  # nothing compares with nan
        raise ValueError(f"expected {EXPECTED}, found {text!r}")
    return value


def count_from(text: str) -> int:
    """How often, from 1 on; ValueError says what was expected."""
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0):
        raise ValueError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def seconds_argument(text: str) -> float:
    """seconds_from for argparse, which tells only its own kind of error."""
    return _told(seconds_from, text)


def count_argument(text: str) -> int:
    """count_from for argparse."""
    return _told(count_from, text)


def _told(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        from argparse import ArgumentTypeError  # commands have typer, and no use for it

        raise ArgumentTypeError(str(error)) from None
