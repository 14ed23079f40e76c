"""Which pages of the zygote's image every birth uses: whoever stands by takes them while there is time.

A new process shares the image with its zygote. Whatever it writes to is copied for it, a reference count in a page is
enough; what it reads of a library it has to map. Each is a page fault, 1 to 2.5 µs, 370 in a birth. They are the same
in every birth: so the first births are looked at, and whoever stands by later begins with these pages. It has hardly
more of its own by that, since what is copied is what it would write to. Who is forked for a domain takes them one by
one: all at once they take as long, and not every birth uses all.

Of a page the kernel says whether it is one process's own. What a domain has of its own may be a copy, or what its
zygote has had copied since. So one that stands by is the witness: where the zygote still shares a page with it, nobody
but the domain has written there.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from heapq import merge
from itertools import groupby

from hvd.transport._native import bring_in

LEARNT_FROM = 4
"""So many births are looked at, and no more."""
SHARED_BY = 3
"""By so many of them a page has to have been used. The others are some kernel's own, or what the zygote has written to
between two forks: who was forked first has the page as it was, alone, and the witness, forked then, shares ours."""
COPIED_MAX = 1536
"""Whatever the guests that were looked at have written to."""
SCANNED_BYTES_MAX = 256 << 20
"""Of one mapping: what is larger is address space that is kept for later."""
ENTRIES_BYTES_MAX = SCANNED_BYTES_MAX // mmap.PAGESIZE * 8
"""Of a page map, for such a mapping."""
PRESENT, FILES_OR_SHARED, OWN = 1 << 63, 1 << 61, 1 << 56  # Documentation/admin-guide/mm/pagemap.rst
STATE, COPY, SHARED = PRESENT | FILES_OR_SHARED | OWN, PRESENT | OWN, PRESENT
POPULATE_READ, POPULATE_WRITE = 22, 23
NONE = -1


class BirthPages:
    """What one zygote has learnt. Where the kernel shows no pagemap, nothing."""

    def __init__(self) -> None:
        self._left = LEARNT_FROM
        self._pagemap = NONE
        self._births: list[array[int]] = []
        """Of each the pages that it has used, in order: twice their number, and 1 more for those that are copied.

        In one piece, as all that `look` needs: where the heap is written to, who stands by has what was there alone.
        """
        self._stretches = b""

    def follow(self, pid: int) -> None:
        """This process is being born: what it has used is looked at when there is time. Nothing if enough are known."""
        if self._left == 0 or self.waiting:
            return
        with suppress(OSError):
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def forget(self) -> None:
        """Whom we follow: there is no witness."""
        os.close(self._pagemap)
        self._pagemap = NONE

    @property
    def waiting(self) -> bool:
        """Whether `look` has something to do."""
        return self._pagemap != NONE

    def look(self) -> None:
        """At whom we follow: this takes milliseconds. It has used nothing if it is dead.

        The witness is one that was forked before this birth and stands by yet, and nobody was forked since.
        """
        pagemap, self._pagemap = self._pagemap, NONE
        try:
            with open("/proc/self/pagemap", "rb") as own:
                used = array("Q", _used(pagemap, own.fileno()))
        except OSError:
            used = array("Q")
        os.close(pagemap)
        if used:
            self._left -= 1
            self._births.append(used)
            self._stretches = _stretches(page for page, by in groupby(merge(*self._births)) if len([*by]) >= SHARED_BY)
        if self._left == 0:
            self._births.clear()

    def bring_in(self) -> None:
        """In a process that was forked from us and has time."""
        bring_in(self._stretches)


def _image() -> Iterator[tuple[int, int, bool]]:
    """Pages of our own private mappings that can be read: from, to, and whether they can be written."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            bounds, rights, _ = line.split(maxsplit=2)
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            if rights.startswith("r") and rights.endswith("p") and end - start <= SCANNED_BYTES_MAX:
                yield start // mmap.PAGESIZE, end // mmap.PAGESIZE, "w" in rights


def _used(pagemap: int, own: int) -> Iterator[int]:
    """Of a writable mapping what the process has a copy of and we share with somebody, else what it has mapped."""
    theirs, ours = (memoryview(mmap.mmap(-1, ENTRIES_BYTES_MAX)) for _ in range(2))
    for first, end, writable in _image():
        found = _entries(pagemap, theirs, first, end)
        if not writable:
            yield from (2 * (first + place) for place, entry in enumerate(found) if entry & PRESENT)
            continue
        for place, (entry, shown) in enumerate(zip(found, _entries(own, ours, first, end), strict=False)):
            if entry & STATE == COPY and shown & STATE == SHARED:
                yield 2 * (first + place) + 1


def _entries(pagemap: int, into: memoryview, first: int, end: int) -> memoryview:
    return into[: os.preadv(pagemap, [into[: (end - first) * 8]], first * 8)].cast("Q")


def _stretches(pages: Iterable[int]) -> bytes:
    """As `bring_in` takes them: pages beside each other in one."""
    found = array("Q")
    copied = 0
    for number in pages:
        page, is_copied = divmod(number, 2)
        copied += is_copied
        if copied > COPIED_MAX:
            break
        advice, start = POPULATE_WRITE if is_copied else POPULATE_READ, page * mmap.PAGESIZE
        if found and found[-1] == advice and found[-3] + found[-2] == start:
            found[-2] += mmap.PAGESIZE
        else:
            found.extend((start, mmap.PAGESIZE, advice))
    return found.tobytes()
