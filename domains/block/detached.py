"""What is left of a disk that was taken away: completions nobody has collected; whatever is asked of it fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any, NoReturn

from hvd.transport._native import Completion


class DetachedDisk:
    """Stands where the disk's BlkFront stood."""

    attached = False
    in_flight = 0
    free_pages = 0
    transfer_sectors_max = 0

    def __init__(self, name: str, left: Iterable[Completion]) -> None:
        self._name = name
        self._left = {completion.id: completion for completion in left}

    def _refuse(self, *_: Any) -> NoReturn:
        raise OSError(errno.ENODEV, f"disk {self._name}: {os.strerror(errno.ENODEV)}: it was detached")

    submit_read = submit_write = submit_reads = submit_writes = submit_flush = submit_discard = lend = _refuse

    def take(self, request_id: int) -> Completion:
        """The completion of a request, once."""
        completion = self._left.pop(request_id, None)
        return self._refuse() if completion is None else completion

    def take_all(self) -> list[Completion]:
        """Those nobody has taken."""
        left = list(self._left.values())
        self._left.clear()
        return left

    def take_back(self, buffer: memoryview) -> None:
        """Its memory goes when its last view does."""

    def attach(self, *_: Any) -> None:
        """No backend is looked for any more."""

    def detach(self) -> None:
        """There is none."""

    def collect(self) -> None:
        """There is no ring."""

    def expire(self, system_time_ns: int) -> None:
        """Everything has."""

    def patience_s(self, most_s: float) -> float:
        return most_s
