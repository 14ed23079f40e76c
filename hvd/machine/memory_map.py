"""A process's mappings as /proc/PID/smaps tells them, and what of each belongs in a core."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hvd.machine.elf_core import PAGE, PF_R, PF_W, PF_X
from hvd.transport.records import dataclass
from hvd.transport.run_dir import EXTENT_LABEL

_MAPPING = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-])([w-])([x-])([sp]) ([0-9a-f]{1,16}) \S+ (\d{1,20}) *(.*)"
)
_EXTENT = re.compile(rb"/memfd:" + EXTENT_LABEL.encode() + rb"(\d{1,9})(?!\d)")
_AMOUNT = re.compile(rb"(Rss|Swap|Anonymous): +(\d{1,18}) kB")
_ADDRESS_MAX = 1 << 63
"""Beyond is x86's vsyscall page, which cannot be read."""


@dataclass(slots=True)
class Mapping:
    """One line of maps and what smaps says below it."""

    start: int
    end: int
    flags: int
    shared: bool
    offset: int
    inode: int
    path: bytes
    resident_kib: int = 1
    """Of it in memory or swapped out. Not 0 where the kernel does not say."""
    own_kib: int = 1
    """Of a private mapping of a file: how much has been written to."""
    excluded: bool = False
    """madvise(MADV_DONTDUMP), or a device's memory."""

    def is_foreign(self, domid: int) -> bool:
        """Whether these are pages that another domain has granted, so that they are its memory."""
        label = _EXTENT.match(self.path)
        return self.shared and label is not None and int(label[1]) != domid

    @property
    def anonymous(self) -> bool:
        """Private, and of no file: a page that was never touched is zero."""
        return not self.shared and self.inode == 0 and not self.path.startswith(b"[v")

    def bytes_wanted(self) -> int:
        """How much from its start a core holds.

        As the kernel has it: all but what can be read elsewhere. Of a file's pages that were never written to the first
        is enough, by whose build ID a debugger finds the file.
        """
        size = self.end - self.start
        if self.excluded or (self.anonymous and not self.resident_kib):
            return 0
        if self.inode and not self.shared and not self.own_kib:
            return min(size, PAGE)
        return size


def parse(lines: Iterable[bytes]) -> list[Mapping]:
    """The mappings in the order of their addresses. Takes /proc/PID/maps too, which says less.

    What no kernel writes is left out: text that is neither, empty mappings, those that begin before the last one ends.
    """
    mappings: list[Mapping] = []
    mapping: Mapping | None = None
    for line in lines:
        if found := _MAPPING.match(line):
            mapping = _mapping(found)
            if (mappings[-1].end if mappings else 0) <= mapping.start < mapping.end < _ADDRESS_MAX:
                mappings.append(mapping)
        elif mapping is not None:
            _detail(mapping, line)
    return mappings


def _mapping(found: re.Match[bytes]) -> Mapping:
    start, end, read, write, execute, kind, offset, inode, path = found.groups()
    flags = PF_R * (read == b"r") | PF_W * (write == b"w") | PF_X * (execute == b"x")
    return Mapping(int(start, 16), int(end, 16), flags, kind == b"s", int(offset, 16), int(inode), path.rstrip(b"\n"))


def _detail(mapping: Mapping, line: bytes) -> None:
    if found := _AMOUNT.match(line):
        kib = int(found[2])
        match found[1]:
            case b"Rss":
                mapping.resident_kib = kib
            case b"Swap":
                mapping.resident_kib += kib
            case _:
                mapping.own_kib = kib
    elif line.startswith(b"VmFlags:"):
        mapping.excluded = not {b"dd", b"io"}.isdisjoint(line.split())
