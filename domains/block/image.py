"""A raw disk image as a backend uses it: opened once per device, all I/O straight from and to granted pages."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from hvd.transport import _native
from hvd.transport.errors import LocalError
from hvd.transport.protocols.block import SECTOR_SIZE

IOV_MAX: Final = 1024
Transfer = Callable[[int, list[memoryview], int], int]


class Image:
    """One image file. Offsets and lengths are in sectors and have been checked against `sectors`."""

    def __init__(self, path: str, *, readonly: bool) -> None:
        """OSError when it cannot be opened; LocalError when it is no whole number of sectors."""
        self.path = path
        # O_NONBLOCK: a FIFO must not hold up every other device; it means nothing to a file or disk.
        self._descriptor = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.sectors = _sectors_of(path, self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def read(self, sector: int, memory: list[memoryview]) -> None:
        """Fill the memory; OSError EIO when the file has become shorter than it was."""
        self._transfer(os.preadv, sector, memory)

    def write(self, sector: int, memory: list[memoryview]) -> None:
        """Write the memory to the page cache; `flush` takes it further."""
        self._transfer(os.pwritev, sector, memory)

    def flush(self) -> None:
        os.fdatasync(self._descriptor)

    def discard(self, sector: int, sectors: int) -> None:
        _native.punch_hole(self._descriptor, sector * SECTOR_SIZE, sectors * SECTOR_SIZE)

    def close(self) -> None:
        os.close(self._descriptor)

    def _transfer(self, call: Transfer, sector: int, memory: list[memoryview]) -> None:
        offset = sector * SECTOR_SIZE
        wanted = sum(map(len, memory))
        while wanted:
            done = call(self._descriptor, memory[:IOV_MAX], offset)
            if done == wanted:
                return
            if done == 0:
                raise OSError(errno.EIO, f"image {self.path} ends at byte {offset}")
            offset += done
            wanted -= done
            memory = _rest(memory, done)


def _sectors_of(path: str, descriptor: int) -> int:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise LocalError(f"image {path} is neither a file nor a block device")
    size = os.lseek(descriptor, 0, os.SEEK_END)
    sectors, rest = divmod(size, SECTOR_SIZE)
    if rest:
        raise LocalError(f"image {path} has {size} bytes, which is no multiple of {SECTOR_SIZE}")
    return sectors


def _rest(memory: list[memoryview], done: int) -> list[memoryview]:
    """What is left of a scatter list after `done` bytes."""
    for index, part in enumerate(memory):
        if done < len(part):
            return [part[done:], *memory[index + 1 :]]
        done -= len(part)
    return []
