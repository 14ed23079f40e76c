"""A raw disk image as a backend uses it: a descriptor the hypervisor opened, and everything but reading and writing.

With a log, each of these operations is noted there (transport/write_log.py), as native code notes each write.
"""

from __future__ import annotations

import os
import stat

from hvd.transport import _native
from hvd.transport.errors import LocalError
from hvd.transport.protocols.block import SECTOR_SIZE
from hvd.transport.write_log import LogKind, whole_length


class Image:
    """One image file. Offsets and lengths are in sectors and have been checked against `sectors`."""

    def __init__(self, path: str, descriptor: int, log: str | None = None) -> None:
        """Takes the descriptor, open for what will be asked of it; `path` is for messages. `log`: a file to append to.

        LocalError, and the descriptor is closed, when it is no whole number of sectors; OSError when the log cannot be
        opened.
        """
        self.path = path
        self.descriptor = descriptor
        self.log: _native.WriteLog | None = None
        self._log_descriptor = -1
        try:
            self.sectors = _sectors_of(path, descriptor)
            if log is not None:
                self._open_log(log)
        except BaseException:
            self.close()
            raise

    def flush(self) -> None:
        """Make what was written durable."""
        os.fdatasync(self.descriptor)
        self._note(LogKind.SYNC)

    def promise(self) -> None:
        """A FLUSH is about to be answered with OKAY."""
        self._note(LogKind.FLUSHED)

    def discard(self, sector: int, sectors: int) -> None:
        self._note(LogKind.DISCARD, sector * SECTOR_SIZE, sectors * SECTOR_SIZE)
        _native.punch_hole(self.descriptor, sector * SECTOR_SIZE, sectors * SECTOR_SIZE)

    def close(self) -> None:
        os.close(self.descriptor)
        if self._log_descriptor >= 0:
            os.close(self._log_descriptor)

    def _open_log(self, path: str) -> None:
        """Go on where a predecessor stopped, who may have been killed in the middle of a record."""
        self._log_descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._log_descriptor, whole_length(self._log_descriptor))
        self.log = _native.WriteLog(self._log_descriptor)

    def _note(self, kind: LogKind, offset: int = 0, length: int = 0) -> None:
        """OSError when the log has no room: then the operation has failed."""
        if self.log is not None:
            self.log.append(kind, offset, length)


def _sectors_of(path: str, descriptor: int) -> int:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise LocalError(f"image {path} is neither a file nor a block device")
    size = os.lseek(descriptor, 0, os.SEEK_END)
    sectors, rest = divmod(size, SECTOR_SIZE)
    if rest:
        raise LocalError(f"image {path} has {size} bytes, which is no multiple of {SECTOR_SIZE}")
    return sectors
