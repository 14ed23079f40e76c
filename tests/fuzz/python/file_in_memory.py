"""One file of a path that never changes and that no disk is written for, with the bytes of the input in it."""

from __future__ import annotations

import os
from pathlib import Path


class FileInMemory:
    """A memfd under its name in /proc."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        self.path = Path(f"/proc/self/fd/{self._descriptor}")

    def hold(self, data: bytes) -> Path:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        return self.path
