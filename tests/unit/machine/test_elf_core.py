"""The bytes of an ELF core, as elf(5) and the kernel's headers have them."""

import struct
import subprocess
from shutil import which

import pytest

from hvd.machine import elf_core
from hvd.machine.elf_core import PAGE, PF_R, PF_W, Segment, Thread

REGISTERS = bytes(range(216))
THREAD = Thread(tid=7, parent=1, group=2, session=3, signal=11, pending=0x10, blocked=0x20, registers=REGISTERS)
SEGMENTS = [Segment(0x1000, 0x4000, PF_R | PF_W, 2 * PAGE), Segment(0x9000, 0xA000, PF_R, 0)]


def test_a_note_is_padded_to_four_bytes():
    assert elf_core.note(6, b"12345") == struct.pack("<III", 5, 5, 6) + b"CORE\0\0\0\0" + b"12345\0\0\0"


def test_a_threads_status_has_its_fields_where_linux_has_them():
    status = elf_core.prstatus(THREAD)
    assert len(status) == 336  # of x86-64: 112 + 27 registers + fpvalid
    assert struct.unpack_from("<i", status, 0) == (11,)
    assert struct.unpack_from("<h", status, 12) == (11,)
    assert struct.unpack_from("<QQ", status, 16) == (0x10, 0x20)
    assert struct.unpack_from("<4i", status, 32) == (7, 1, 2, 3)
    assert status[112:-8] == REGISTERS


def test_a_process_has_its_name_and_arguments_cut_to_their_fields():
    info = elf_core.prpsinfo(THREAD, b"n" * 30, b"a" * 100, 1000, 1001)
    assert len(info) == 136
    assert struct.unpack_from("<II4i", info, 16) == (1000, 1001, 7, 1, 2, 3)
    assert info[40:56] == b"n" * 15 + b"\0"
    assert info[56:] == b"a" * 79 + b"\0"


def test_mapped_files_are_counted_in_pages():
    data = elf_core.file_map([(0x1000, 0x3000, 2 * PAGE, b"/a"), (0x5000, 0x6000, 0, b"/b")])
    assert struct.unpack_from("<8Q", data) == (2, PAGE, 0x1000, 0x3000, 2, 0x5000, 0x6000, 0)
    assert data[64:] == b"/a\0/b\0"


def test_segments_lie_on_pages_one_behind_the_other():
    first, second, end = elf_core.offsets_of(b"n" * 5000, SEGMENTS)
    assert (first % PAGE, second - first, end - second) == (0, 2 * PAGE, 0)
    assert first >= 64 + 3 * 56 + 5000


@pytest.mark.skipif(which("readelf") is None, reason="no readelf (binutils)")
def test_readelf_reads_it(tmp_path):
    notes = elf_core.note(elf_core.NT_PRSTATUS, elf_core.prstatus(THREAD))
    offsets = elf_core.offsets_of(notes, SEGMENTS)
    core = tmp_path / "core"
    core.write_bytes(elf_core.headers(62, notes, SEGMENTS, offsets[:-1]).ljust(offsets[-1], b"\0"))
    run = subprocess.run(["readelf", "-W", "-h", "-n", "-l", core], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    words = " ".join(run.stdout.split())
    assert "Type: CORE (Core file)" in words
    assert "CORE 0x00000150 NT_PRSTATUS (prstatus structure)" in words
    assert f"LOAD 0x{offsets[0]:06x} 0x0000000000001000 0x0000000000000000 0x002000 0x003000 RW" in words
