"""The dumper process: writes the ELF core of another process, which stands still meanwhile.

What goes in is what the kernel's own cores hold (core(5), filter 0x33): all memory but pages of files that were never
written to, and but those that other domains have granted it, as Xen leaves foreign pages out. Pages of zeros are holes.
When the rest is too much the largest mappings end early.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hvd.machine import elf_core
from hvd.machine.elf_core import PAGE, Segment, Thread
from hvd.machine.memory_map import Mapping
from hvd.machine.traced import GONE, NoCore, TracedProcess
from hvd.transport import _native
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.records import dataclass
from hvd.transport.run_dir import PART

CORE_BYTES_MAX = 256 << 20
"""Bytes of memory in the core of a domain that dies, holes not counted; one that somebody asks for has no such end."""
CORES_KEPT_MAX = 3
"""Cores of one domain's name that are kept; the oldest go."""
SUFFIX = ".core"
_CHUNK = 1 << 20
_ZEROS = bytes(PAGE)
_SIGINFO_BYTES = 128


@dataclass(frozen=True, slots=True)
class Target:
    """Where a core is to be, and under which name it is written before it is whole."""

    path: Path
    part: Path
    bytes_max: int
    """Of memory, holes not counted."""


def dump_dying(process: tuple[int, int], directory: Path, name: str, fault: FaultNotice | None) -> str:
    """`dump` to `directory`/`name`.core, the directory made if need be; the oldest cores of that domain go."""
    path = directory / (name + SUFFIX)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return f"no core: {error.strerror}"
    said = dump(process, Target(path, path.with_name(path.name + PART), CORE_BYTES_MAX), fault)
    with contextlib.suppress(OSError):
        prune(directory, name)
    return said


def dump(process: tuple[int, int], target: Target, fault: FaultNotice | None = None) -> str:
    """Write the core of (pid, domid); what became of it, in words. A core that cannot be finished leaves nothing.

    What is at its place before is replaced, if it is a file. The calling thread traces the process from here on, until
    it ends: this is for a process of its own.
    """
    pid, domid = process
    try:
        if target.path.exists() and not target.path.is_file():
            raise NoCore(f"{target.path} is no regular file")
        target.part.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(target.part, flags, 0o600)
        try:
            whole = write_core(TracedProcess(pid), descriptor, fault, domid=domid, bytes_max=target.bytes_max)
        finally:
            os.close(descriptor)
        target.part.replace(target.path)
    except (OSError, NoCore) as error:
        with contextlib.suppress(OSError):
            target.part.unlink(missing_ok=True)
        if isinstance(error, ProcessLookupError):
            error = NoCore(GONE)
        return f"no core: {error if isinstance(error, NoCore) else error.strerror}"
    return f"core: {target.path}" if whole else f"core: {target.path} (cut off at {target.bytes_max >> 20} MiB)"


def prune(directory: Path, name: str) -> None:
    """Remove the oldest cores of the domain that this is one of, beyond those that are kept."""
    mine = re.compile(re.escape(name.rpartition(".")[0]) + r"\.\d+" + re.escape(SUFFIX))
    cores = [entry for entry in directory.iterdir() if mine.fullmatch(entry.name)]
    for old in sorted(cores, key=lambda entry: entry.stat().st_mtime_ns)[:-CORES_KEPT_MAX]:
        old.unlink()


def write_core(
    process: TracedProcess, descriptor: int, fault: FaultNotice | None, *, domid: int, bytes_max: int
) -> bool:
    """The whole core; False if it was cut off. OSError when the file cannot take it, NoCore when the process dies."""
    mappings = [each for each in process.mappings() if not each.is_foreign(domid)][: elf_core.SEGMENTS_MAX]
    notes = b"".join(_notes(process, mappings, fault))
    planned = [Segment(m.start, m.end, m.flags, m.bytes_wanted()) for m in mappings]
    offsets = elf_core.offsets_of(notes, planned)
    copier = _Copier(process, descriptor, bytes_max)
    smallest_first = sorted(zip(planned, mappings, offsets[:-1], strict=True), key=lambda plan: plan[0].held)
    held = {segment: copier.copy(segment, mapping, offset) for segment, mapping, offset in smallest_first}
    segments = [Segment(s.start, s.end, s.flags, held[s]) for s in planned]
    os.ftruncate(descriptor, offsets[-1])
    _write(descriptor, elf_core.headers(_native.ELF_MACHINE, notes, segments, offsets[:-1]), 0)
    return copier.whole


def _notes(process: TracedProcess, mappings: list[Mapping], fault: FaultNotice | None) -> Iterator[bytes]:
    """The first thread's registers, what concerns the process, then the other threads'."""
    first = True
    for tid, thread, faulted in process.threads(fault):
        yield elf_core.note(elf_core.NT_PRSTATUS, elf_core.prstatus(thread))
        if first:
            yield from _process_notes(process, thread, mappings, fault)
        if not faulted:  # the faulting thread's are its handler's by now
            yield elf_core.note(elf_core.NT_FPREGSET, _native.ptrace_registers(tid, elf_core.NT_FPREGSET))
        first = False


def _process_notes(
    process: TracedProcess, thread: Thread, mappings: list[Mapping], fault: FaultNotice | None
) -> Iterator[bytes]:
    status = process.status(process.pid)
    uid, gid = (int((status.get(name) or b"0").split()[0]) for name in (b"Uid", b"Gid"))
    arguments = (process.proc / "cmdline").read_bytes().replace(b"\0", b" ").strip()
    info = elf_core.prpsinfo(thread, status.get(b"Name", b""), arguments, uid, gid)
    yield elf_core.note(elf_core.NT_PRPSINFO, info)
    if fault is not None:
        siginfo = process.read(fault.untrusted_siginfo, _SIGINFO_BYTES)
        if len(siginfo) == _SIGINFO_BYTES:
            yield elf_core.note(elf_core.NT_SIGINFO, siginfo)
    yield elf_core.note(elf_core.NT_AUXV, (process.proc / "auxv").read_bytes())
    files = [(m.start, m.end, m.offset, m.path) for m in mappings if m.inode]
    yield elf_core.note(elf_core.NT_FILE, elf_core.file_map(files))


class _Copier:
    """Copies memory into the file until that has as many bytes as it may have."""

    def __init__(self, process: TracedProcess, descriptor: int, bytes_max: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self._left = bytes_max
        self.whole = True
        """Nothing was cut off so far."""

    def copy(self, wanted: Segment, mapping: Mapping, offset: int) -> int:
        """How much of it, from its start, the file holds now: less where it cannot be read, or does not fit."""
        end = wanted.start + wanted.held
        for at in range(wanted.start, end, _CHUNK):
            size = min(_CHUNK, end - at)
            if mapping.anonymous and not self._process.is_touched(at, size):
                continue
            data = self._process.read(at, size)
            if not self._write_filled(data, offset + at - wanted.start):
                self.whole = False
                return at - wanted.start
            if len(data) < size:
                return at - wanted.start + len(data)
        return wanted.held

    def _write_filled(self, data: bytes, offset: int) -> bool:
        """Write the pages that are not all zeros; False, and nothing is written, if they do not fit."""
        pages = memoryview(data)
        filled = [at for at in range(0, len(data), PAGE) if pages[at : at + PAGE] != _ZEROS]
        if len(filled) * PAGE > self._left:
            return False
        runs: list[list[int]] = []
        for at in filled:
            if runs and runs[-1][1] == at:
                runs[-1][1] = at + PAGE
            else:
                runs.append([at, at + PAGE])
        for start, end in runs:
            _write(self._descriptor, pages[start:end], offset + start)
        self._left -= len(filled) * PAGE
        return True


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
