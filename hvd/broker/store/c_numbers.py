"""Numbers as xenstored reads them: what C makes of a text, an int in the end. No text is too long."""

from __future__ import annotations

import re

_ATOI = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", re.ASCII)
_STRTOL = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))", re.ASCII)
_LONG_MAX = (1 << 63) - 1
_DIGITS_MAX = 22
"""A long has no more, to any base; what has more is beyond it."""


def atoi(text: str) -> int:
    """What it begins with; what is no number is 0. As an unsigned int: -1 is the largest."""
    match = _ATOI.match(text)
    return 0 if match is None else _long(match[1].lstrip("+-"), 10, match[1][0] == "-") & 0xFFFFFFFF


def strtol(text: str) -> int | None:
    """All of it, to base 8 behind a 0 and to base 16 behind 0x, as an int. None: it is no number."""
    match = _STRTOL.fullmatch(text)
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    digits, base = next((each, base) for each, base in ((hexadecimal, 16), (octal, 8), (decimal, 10)) if each)
    value = _long(digits, base, sign == "-") & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _long(digits: str, base: int, negative: bool) -> int:
    digits = digits.lstrip("0") or "0"
    size = int(digits, base) if len(digits) <= _DIGITS_MAX else _LONG_MAX + 1
    return max(-size, -_LONG_MAX - 1) if negative else min(size, _LONG_MAX)
