"""Whether somebody reads a terminal: the kernel tells of each open and each read (inotify)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

from hvd.transport._native import inotify_descriptor, unwatch_readers, watch_readers

_EVENT = struct.Struct("=iIII")
IN_Q_OVERFLOW = 0x4000  # linux/inotify.h
READ_BYTES = 65_536
UNKNOWN = -1
"""The number of a terminal that the kernel tells nothing of: somebody may read it."""


class Readers:
    """Of any number of terminals."""

    def __init__(self) -> None:
        self._descriptor = -1
        with suppress(OSError):  # the host has no more of them for us
            self._descriptor = inotify_descriptor()
        self._since: set[int] = set()
        """Those that were opened or read since somebody asked."""
        self._followed: set[int] = set()

    def follow(self, path: str) -> int:
        """From here on; the number by which the others know it."""
        try:
            number = watch_readers(self._descriptor, path)
        except OSError:
            return UNKNOWN
        self._followed.add(number)
        return number

    def were_there(self, number: int) -> bool:
        """Whether somebody has opened or read it since this was asked last; True where nobody can say."""
        if number == UNKNOWN:
            return True
        self._take()
        there = number in self._since
        self._since.discard(number)
        return there

    def forget(self, number: int) -> None:
        """The terminal is about to go."""
        if number != UNKNOWN:
            self._followed.discard(number)
            self._since.discard(number)
            with suppress(OSError):  # the kernel has forgotten it already
                unwatch_readers(self._descriptor, number)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _take(self) -> None:
        """All there is: the kernel keeps a bounded number."""
        with suppress(BlockingIOError):
            while True:
                for number, mask in _events(os.read(self._descriptor, READ_BYTES)):
                    self._since |= self._followed if mask & IN_Q_OVERFLOW else self._followed & {number}


def _events(read: bytes) -> Iterator[tuple[int, int]]:
    """(number, mask) of each."""
    at = 0
    while at < len(read):
        number, mask, _, name_length = _EVENT.unpack_from(read, at)
        yield number, mask
        at += _EVENT.size + name_length
