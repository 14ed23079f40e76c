"""Extents: sealed memfds of whole pages, how they are made, restricted, and mapped without the risk of SIGBUS.

The extent is the unit of isolation, because a descriptor exposes its whole file; grant references still count 4 KiB
pages. The broker creates extents, everybody else receives descriptors and maps them.
"""

import fcntl
import os
from types import TracebackType
from typing import Self

from hvd.transport._native import Mapping
from hvd.transport.errors import LocalError

PAGE_SIZE = 4096

# Not in Python 3.11's fcntl; linux/fcntl.h.
_F_SEAL_FUTURE_WRITE = 0x0010


def create_extent(pages: int, label: str) -> int:
    """A descriptor of `pages` zeroed, allocated pages that can be neither shrunk nor grown; `label` shows in maps.

    Allocated now, so that a host without memory refuses here (OSError) instead of killing whoever touches the page.
    """
    fd = create_hole(pages, label)
    try:
        os.posix_fallocate(fd, 0, pages * PAGE_SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_hole(pages: int, label: str) -> int:
    """The same without memory: whoever is to touch it must see to that first."""
    if pages <= 0:
        raise LocalError(f"an extent holds at least one page, not {pages}")
    fd = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, pages * PAGE_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal_future_writes(fd: int) -> None:
    """Only mappings that exist now can still write; forbids hole punching and further writable maps to everybody."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)


def seal_seals(fd: int) -> None:
    """Nobody who holds the extent can add a seal, which would lock out a restarted peer."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)


def open_read_only(fd: int) -> int:
    """A second, read-only open file description of the extent: what a read-only grant hands out.

    The receiver could re-open it for writing where it sees a /proc, so it must see none.
    """
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


class Extent:
    """An extent mapped into this process. The descriptor is not kept and stays the caller's."""

    def __init__(self, mapping: Mapping, pages: int) -> None:
        self._mapping = mapping
        self._pages = pages
        self._view = memoryview(mapping)

    @classmethod
    def map(cls, fd: int, pages: int, *, writable: bool) -> Self:
        """Maps the first `pages` pages. PeerFault: it is shorter, or not sealed, so that touching it could kill us."""
        if pages <= 0:
            raise LocalError(f"an extent is mapped by at least one page, not {pages}")
        return cls(Mapping(fd, pages * PAGE_SIZE, writable), pages)

    @classmethod
    def gather(cls, pages: list[memoryview]) -> Self:
        """Single pages of extents that are mapped for writing, once more: in this order, without gaps."""
        return cls(Mapping(pages), len(pages))

    @property
    def view(self) -> memoryview:
        """All of its bytes. A view outlives nothing: release it before `close`."""
        return self._view

    def __len__(self) -> int:
        """Pages mapped."""
        return self._pages

    def page(self, index: int) -> memoryview:
        """The bytes of one page."""
        return self.pages(index, 1)

    def pages(self, first: int, count: int) -> memoryview:
        """The bytes of `count` adjacent pages from page `first`, all within the extent (else LocalError)."""
        if first < 0 or count <= 0 or first + count > self._pages:
            raise LocalError(f"pages {first}..{first + count - 1} are not within an extent of {self._pages} pages")
        return self._view[first * PAGE_SIZE : (first + count) * PAGE_SIZE]

    def close(self) -> None:
        """Unmaps; idempotent. LocalError while a ring, an endpoint or anybody's view still uses the memory."""
        self._view.release()
        try:
            self._mapping.close()
        except LocalError:
            self._view = memoryview(self._mapping)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
