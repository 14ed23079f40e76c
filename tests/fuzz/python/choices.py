"""The fuzzer's bytes as the choices of a target. What is not there any more is zero, so that every input means
something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """One input, consumed from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """At most so many bytes: what is left."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def number(self, size: int) -> int:
        """Of so many bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def below(self, count: int) -> int:
        """From 0 to `count` - 1, of one byte."""
        return self.number(1) % count

    def flag(self) -> bool:
        return bool(self.number(1) & 1)

    def pick(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]

    def text(self, bytes_max: int) -> str:
        """Of at most so many bytes; what is no UTF-8 is left out."""
        return self.take(self.below(bytes_max + 1)).decode(errors="ignore")
