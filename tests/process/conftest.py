"""Owns how tests read cores: an ELF parser of their own, which shares no line with what writes them."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PT_LOAD, PT_NOTE, ET_CORE = 1, 4, 4


class CoreFile:
    """One core, mapped: its notes and the memory that it holds."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert self.bytes[:6] == b"\x7fELF\x02\x01"
        kind, self.machine, _, _, phoff, _, _, _, phentsize, phnum = struct.unpack_from("<HHIQQQIHHH", self.bytes, 16)
        assert (kind, phentsize) == (ET_CORE, 56)
        headers = [struct.unpack_from("<IIQQQQQQ", self.bytes, phoff + n * phentsize) for n in range(phnum)]
        self.loads = [(vaddr, offset, filesz, memsz) for kind, _, offset, vaddr, _, filesz, memsz, _ in headers
                      if kind == PT_LOAD]  # fmt: skip
        (notes,) = [(offset, filesz) for kind, _, offset, _, _, filesz, _, _ in headers if kind == PT_NOTE]
        self.notes = list(self._parse(*notes))

    def _parse(self, at: int, size: int) -> Iterator[tuple[int, bytes]]:
        end = at + size
        while at < end:
            namesz, descsz, kind = struct.unpack_from("<III", self.bytes, at)
            at += 12 + -(-namesz // 4) * 4
            yield kind, self.bytes[at : at + descsz]
            at += -(-descsz // 4) * 4
        assert at == end

    def memory(self, address: int, size: int) -> bytes | None:
        """What it holds of this range; None unless it holds all."""
        for vaddr, offset, filesz, _ in self.loads:
            if vaddr <= address and address + size <= vaddr + filesz:
                return self.bytes[offset + address - vaddr : offset + address - vaddr + size]
        return None

    def holds(self, text: bytes) -> bool:
        """Whether these bytes are somewhere in its memory."""
        return any(self.bytes.find(text, offset, offset + filesz) >= 0 for _, offset, filesz, _ in self.loads)

    def threads(self) -> list[tuple[int, int, bytes]]:
        """(tid, signal, registers) of each NT_PRSTATUS."""
        found = [data for kind, data in self.notes if kind == 1]
        return [(struct.unpack_from("<i", data, 32)[0], struct.unpack_from("<h", data, 12)[0], data[112:-8])
                for data in found]  # fmt: skip

    def files(self) -> list[tuple[int, str]]:
        """(start, path) of each mapped file: NT_FILE."""
        (data,) = [data for kind, data in self.notes if kind == 0x46494C45]
        count, _ = struct.unpack_from("<QQ", data)
        paths = data[16 + 24 * count :].split(b"\0")
        return [(struct.unpack_from("<Q", data, 16 + 24 * n)[0], paths[n].decode()) for n in range(count)]

    def note(self, kind: int) -> bytes:
        """The only note of this kind."""
        (data,) = [data for found, data in self.notes if found == kind]
        return data


@pytest.fixture
def read_core() -> Iterator[Callable[[Path], CoreFile]]:
    """Opens cores for one test."""
    opened: list[CoreFile] = []

    def read(path: Path) -> CoreFile:
        opened.append(CoreFile(path))
        return opened[-1]

    yield read
    for core in opened:
        core.bytes.close()
