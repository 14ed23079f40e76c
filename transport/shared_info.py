"""The page that tells a domain the time: written by the broker, mapped read-only by the domain (Xen's shared_info).

Little-endian u64 words: 0 version (odd while being written), 1 started_ns and 2 paused_ns on CLOCK_MONOTONIC, 3 the
wall clock at system time 0, 4 domid, 5 incarnation, 6 the clock of the trace that the domain is to write, 0 for none
(native/trace.hpp looks at it). System time = CLOCK_MONOTONIC - started - paused: it stands still
while the domain is paused, and the wall clock, which counts from it, with it.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

WORDS = struct.Struct("<6Q")
TRACE_SWITCH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TimeInfo:
    """What the page says."""

    started_ns: int
    paused_ns: int
    wall_base_ns: int
    domid: int
    incarnation: int


def write_time_info(page: mmap.mmap, info: TimeInfo) -> None:
    """Publish; a reader in the middle of it tries again."""
    version = struct.unpack_from("<Q", page)[0] | 1
    struct.pack_into("<Q", page, 0, version)
    WORDS.pack_into(page, 0, version, info.started_ns, info.paused_ns, info.wall_base_ns, info.domid, info.incarnation)
    struct.pack_into("<Q", page, 0, version + 1)


def write_trace_switch(descriptor: int, clock: int) -> None:
    """Heard at the domain's next notification or ring operation. All but its low byte are always zero."""
    os.pwrite(descriptor, TRACE_SWITCH.pack(clock), WORDS.size)


class SharedInfo:
    """A domain's view of its page."""

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self) -> TimeInfo:
        """A consistent copy. The writer stops us (or is the broker's only thread), so this ends at once in practice."""
        for _ in range(1000):
            version, *words = WORDS.unpack_from(self._page)
            if not version & 1 and struct.unpack_from("<Q", self._page)[0] == version:
                return TimeInfo(*words)
        return TimeInfo(*words)

    def system_time_ns(self) -> int:
        """Nanoseconds this incarnation has run, pauses left out."""
        info = self.read()
        return time.monotonic_ns() - info.started_ns - info.paused_ns

    def wall_clock_ns(self) -> int:
        """Nanoseconds since 1970 as the domain sees it: behind the host's by what it spent paused."""
        return self.read().wall_base_ns + self.system_time_ns()
