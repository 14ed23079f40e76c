"""Looks at a disk image before anything is started: there, a whole number of sectors, open to the access asked."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from hvd.toolstack.config.problems import Place, Report, shown

SECTOR_BYTES = 512
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
}


class Image(NamedTuple):
    """An image that can be opened."""

    identity: tuple[int, int]
    """Device and inode: the same for every path that leads to it."""
    block_device: bool


def image_at(report: Report, place: Place, path: Path, *, writable: bool, hint: str = "") -> Image | None:
    """The image at `path`; None, and reported, if there is none that can be used."""
    access = "reading and writing" if writable else "reading"
    try:
        status = path.stat()  # before it is opened: opening a FIFO blocks, opening some devices does things
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            report.wrong(
                place,
                "a regular file or a block device",
                _KINDS.get(stat.S_IFMT(status.st_mode), "something else"),
                hint,
            )
            return None
        size = _size(path, writable=writable)
    except OSError as error:
        report.wrong(place, f"an image open to {access}", f"{shown(str(path))}: {error.strerror}", hint)
        return None
    if size == 0 or size % SECTOR_BYTES:
        fit = (size // SECTOR_BYTES + 1) * SECTOR_BYTES
        found = f"{size} bytes in {shown(str(path))}"
        report.wrong(
            place, f"a size that is a multiple of {SECTOR_BYTES} bytes, not 0", found, f"truncate -s {fit} grows it"
        )
        return None
    return Image((status.st_dev, status.st_ino), stat.S_ISBLK(status.st_mode))


def _size(path: Path, *, writable: bool) -> int:
    """Opened in the mode asked: permission bits alone do not tell of read-only file systems, ACLs or capabilities."""
    descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
