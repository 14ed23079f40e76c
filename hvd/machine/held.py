"""The descriptors the machine keeps for the broker, so that they outlive it."""

from __future__ import annotations

import os


class Held:
    """Lists of descriptors under a name the broker chose. A name held again replaces what it named."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[int]] = {}

    def hold(self, key: str, descriptors: list[int]) -> None:
        self.drop(key)
        self.by_key[key] = descriptors

    def drop(self, key: str) -> None:
        for descriptor in self.by_key.pop(key, []):
            os.close(descriptor)

    def drop_all(self) -> None:
        for key in list(self.by_key):
            self.drop(key)
