"""Any text in the place of /proc/PID/smaps: mappings of which a core can be laid out and its headers written."""

from __future__ import annotations

import itertools

from hvd.machine import elf_core, memory_map
from hvd.machine.elf_core import SEGMENTS_MAX, Segment

X86_64 = 62


def play(data: bytes) -> None:
    mappings = memory_map.parse(data.splitlines())[:SEGMENTS_MAX]
    segments = []
    for mapping in mappings:
        held = mapping.bytes_wanted()
        assert 0 <= held <= mapping.end - mapping.start
        segments.append(Segment(mapping.start, mapping.end, mapping.flags, held))
    notes = elf_core.note(
        elf_core.NT_FILE, elf_core.file_map([(m.start, m.end, m.offset, m.path) for m in mappings if m.inode])
    )
    offsets = elf_core.offsets_of(notes, segments)
    assert all(before <= after for before, after in itertools.pairwise(offsets))
    headers = elf_core.headers(X86_64, notes, segments, offsets[:-1])
    assert len(headers) <= offsets[0]
