"""A raw disk image as a backend uses it: a descriptor the hypervisor opened, and everything but reading and writing."""

from __future__ import annotations

import os
import stat

from hvd.transport import _native
from hvd.transport.errors import LocalError
from hvd.transport.protocols.block import SECTOR_SIZE


class Image:
    """One image file. Offsets and lengths are in sectors and have been checked against `sectors`."""

    def __init__(self, path: str, descriptor: int) -> None:
        """Takes the descriptor, open for what will be asked of it; `path` is for messages.

        LocalError, and the descriptor is closed, when it is no whole number of sectors.
        """
        self.path = path
        self.descriptor = descriptor
        try:
            self.sectors = _sectors_of(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def flush(self) -> None:
        os.fdatasync(self.descriptor)

    def discard(self, sector: int, sectors: int) -> None:
        _native.punch_hole(self.descriptor, sector * SECTOR_SIZE, sectors * SECTOR_SIZE)

    def close(self) -> None:
        os.close(self.descriptor)


def _sectors_of(path: str, descriptor: int) -> int:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise LocalError(f"image {path} is neither a file nor a block device")
    size = os.lseek(descriptor, 0, os.SEEK_END)
    sectors, rest = divmod(size, SECTOR_SIZE)
    if rest:
        raise LocalError(f"image {path} has {size} bytes, which is no multiple of {SECTOR_SIZE}")
    return sectors
