"""The format of an ELF core file: headers, notes, and where each segment's bytes lie. Bytes in, bytes out.

elf(5); the notes are those of Linux (linux/elfcore.h), as gdb and readelf read them. x86-64 and aarch64 have the same
layout of everything here but the registers, which come as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hvd.transport.records import dataclass

PAGE = 4096
NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV, NT_SIGINFO, NT_FILE = 1, 2, 3, 6, 0x53494749, 0x46494C45
SEGMENTS_MAX = 65_000
"""Program headers are counted in 16 bits; what lies beyond is left out."""
PF_X, PF_W, PF_R = 1, 2, 4

_EHDR = struct.Struct("<4sBBBBB7xHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_PRSTATUS = struct.Struct("<iii hxx QQ iiii 8q".replace(" ", ""))
_PRPSINFO = struct.Struct("<bcbb4xQIIiiii16s80s")
_ET_CORE, _PT_LOAD, _PT_NOTE, _EV_CURRENT, _CLASS64, _LITTLE = 4, 1, 4, 1, 2, 1


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of the process's memory, of which the file holds the first `held` bytes. Whole pages."""

    start: int
    end: int
    flags: int
    """PF_R | PF_W | PF_X."""
    held: int


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread as NT_PRSTATUS describes it. `registers` is the architecture's user_regs_struct."""

    tid: int
    parent: int
    group: int
    session: int
    signal: int
    pending: int
    blocked: int
    registers: bytes


def note(kind: int, description: bytes, owner: bytes = b"CORE") -> bytes:
    """One note, padded to four bytes."""
    name = owner + b"\0"
    return _NOTE.pack(len(name), len(description), kind) + _padded(name, 4) + _padded(description, 4)


def prstatus(thread: Thread) -> bytes:
    """struct elf_prstatus; its times are zero."""
    head = _PRSTATUS.pack(
        thread.signal, 0, 0, thread.signal, thread.pending, thread.blocked, thread.tid, thread.parent, thread.group,
        thread.session, *[0] * 8,
    )  # fmt: skip
    return head + thread.registers + struct.pack("<ii", 0, 0)


def prpsinfo(thread: Thread, name: bytes, arguments: bytes, uid: int, gid: int) -> bytes:
    """struct elf_prpsinfo."""
    return _PRPSINFO.pack(
        0, b"R", 0, 0, 0, uid, gid, thread.tid, thread.parent, thread.group, thread.session, name[:15], arguments[:79]
    )


def file_map(files: Sequence[tuple[int, int, int, bytes]]) -> bytes:
    """NT_FILE: which file (start, end, offset in bytes, path) is mapped where."""
    ranges = b"".join(struct.pack("<QQQ", start, end, offset // PAGE) for start, end, offset, _ in files)
    paths = b"".join(path + b"\0" for _, _, _, path in files)
    return struct.pack("<QQ", len(files), PAGE) + ranges + paths


def headers(machine: int, notes: bytes, segments: Sequence[Segment], offsets: Sequence[int]) -> bytes:
    """The file's beginning: ELF header, program headers, notes."""
    count = 1 + len(segments)
    notes_at = _EHDR.size + count * _PHDR.size
    ident = b"\x7fELF", _CLASS64, _LITTLE, _EV_CURRENT, 0, 0
    ehdr = _EHDR.pack(
        *ident, _ET_CORE, machine, _EV_CURRENT, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, count, 0, 0, 0
    )
    loads = b"".join(
        _PHDR.pack(_PT_LOAD, s.flags, at, s.start, 0, s.held, s.end - s.start, PAGE)
        for s, at in zip(segments, offsets, strict=True)
    )
    return ehdr + _PHDR.pack(_PT_NOTE, 0, notes_at, 0, 0, len(notes), 0, 4) + loads + notes


def offsets_of(notes: bytes, segments: Sequence[Segment]) -> list[int]:
    """Where each segment's bytes begin in the file, and last where they end: one behind the other, on whole pages."""
    at = _EHDR.size + (1 + len(segments)) * _PHDR.size + len(notes)
    at += -at % PAGE
    offsets = [at]
    for segment in segments:
        at += segment.held
        offsets.append(at)
    return offsets


def _padded(data: bytes, to: int) -> bytes:
    return data + b"\0" * (-len(data) % to)
