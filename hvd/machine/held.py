"""The descriptors the machine keeps for the broker, so that they outlive it."""

from __future__ import annotations

import os
from collections.abc import Iterable


class Held:
    """Lists of descriptors under a name the broker chose. A name held again replaces what it named.

    What is `kept` from the beginning no broker drops, and no reboot.
    """

    def __init__(self, kept: dict[str, list[int]] | None = None) -> None:
        self.by_key = dict(kept or {})
        self._kept = frozenset(self.by_key)

    def hold(self, key: str, descriptors: list[int]) -> None:
        self.drop(key)
        self.by_key[key] = descriptors

    def drop(self, key: str) -> None:
        if key not in self._kept:
            for descriptor in self.by_key.pop(key, []):
                os.close(descriptor)

    def drop_each(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.drop(key)

    def drop_all(self) -> None:
        self.drop_each(list(self.by_key))
