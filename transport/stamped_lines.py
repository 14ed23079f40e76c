"""What a console exerciser prints: lines that say whose they are, which, and whether they are whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

MARK: Final = "hvdline"
_LINE = re.compile(rf"{MARK} (\d+) (\d+) ([0-9a-f]{{16}})\n")


def stamped_line(seed: int, number: int) -> str:
    """The whole line, its end too."""
    return f"{MARK} {seed} {number} {_hash(seed, number)}\n"


def whole_lines(text: str) -> Iterator[tuple[int, int]]:
    """(seed, number) of each whole line, also behind a piece of another that has no end."""
    for match in _LINE.finditer(text):
        seed, number = int(match[1]), int(match[2])
        if match[3] == _hash(seed, number):
            yield seed, number


def pieces(text: str) -> int:
    """How many lines were begun and are not whole."""
    return text.count(MARK) - sum(1 for _ in whole_lines(text))


def _hash(seed: int, number: int) -> str:
    return hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).hexdigest()
