"""Mappings as the kernel tells them, and which bytes of each belong in a core."""

import os
from pathlib import Path

import pytest

from hvd.machine.elf_core import PAGE, PF_R, PF_W, PF_X
from hvd.machine.memory_map import parse

FILE = b"7f0000000000-7f0000004000 r-xp 00002000 fd:01 1234                       /usr/lib/libc with space.so\n"
HEAP = b"560000000000-560000100000 rw-p 00000000 00:00 0                          [heap]\n"
EXTENT = b"7f1000000000-7f1000010000 rw-s 00000000 00:01 77                         /memfd:hvd-extent (deleted)\n"
DATA = b"7f0000004000-7f0000006000 rw-p 00006000 fd:01 1234                       /usr/lib/libc.so\n"
VVAR = b"7ffd00000000-7ffd00004000 r--p 00000000 00:00 0                          [vvar]\n"
VSYSCALL = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"


def one(*lines):
    (mapping,) = parse(lines)
    return mapping


def test_a_line_of_maps_is_taken_apart():
    mapping = one(FILE)
    assert (mapping.start, mapping.end, mapping.offset) == (0x7F0000000000, 0x7F0000004000, 0x2000)
    assert (mapping.flags, mapping.shared, mapping.inode) == (PF_R | PF_X, False, 1234)
    assert mapping.path == b"/usr/lib/libc with space.so"
    assert one(HEAP).flags == PF_R | PF_W


def test_details_belong_to_the_mapping_above_them():
    first, second = parse([HEAP, b"Rss:        12 kB\n", b"Swap:        8 kB\n", FILE, b"Anonymous:   4 kB\n"])
    assert (first.resident_kib, second.own_kib) == (20, 4)


@pytest.mark.parametrize(("lines", "wanted"), [
    ([HEAP, b"Rss: 4 kB"], 1 << 20),
    ([HEAP, b"Rss: 0 kB"], 0),
    ([HEAP, b"Rss: 0 kB", b"Swap: 4 kB"], 1 << 20),
    ([FILE, b"Rss: 16 kB", b"Anonymous: 0 kB"], PAGE),
    ([DATA, b"Rss: 8 kB", b"Anonymous: 4 kB"], 0x2000),
    ([DATA, b"Rss: 0 kB", b"Anonymous: 4 kB"], 0x2000),
    ([EXTENT, b"Rss: 0 kB", b"Anonymous: 0 kB"], 0x10000),
    ([HEAP, b"Rss: 4 kB", b"VmFlags: rd wr mr mw me dd ac sd"], 0),
    ([VVAR, b"Rss: 0 kB", b"VmFlags: rd mr pf io de dd sd"], 0),
    ([HEAP], 1 << 20),
])
def test_a_core_holds_what_cannot_be_read_elsewhere(lines, wanted):
    assert one(*lines).bytes_wanted() == wanted


def test_what_has_no_address_that_can_be_read_is_left_out():
    assert parse([VSYSCALL]) == []


BACKWARDS = b"7f0000004000-7f0000002000 rw-p 00000000 00:00 0\n"
EMPTY = b"7f0000004000-7f0000004000 rw-p 00000000 00:00 0\n"
NO_ADDRESS = b"1" * 17 + b"-" + b"2" * 17 + b" rw-p 00000000 00:00 0\n"


@pytest.mark.parametrize("line", [BACKWARDS, EMPTY, NO_ADDRESS, FILE, b"\xff\n", b""])
def test_what_no_kernel_writes_is_no_mapping_and_changes_none(line):
    assert parse([FILE, line, b"Rss: 8 kB"])[0].start == one(FILE).start
    assert len(parse([FILE, line])) == 1


@pytest.mark.parametrize("detail", [b"Rss:", b"Swap: x kB", b"Anonymous: -1 kB", b"Rss: " + b"9" * 5000 + b" kB"])
def test_a_detail_that_is_no_number_is_passed_over(detail):
    assert one(FILE, detail) == one(FILE)


def test_our_own_mappings_make_sense():
    text = Path("/proc/self/smaps").read_bytes().splitlines()
    mappings = parse(text)
    assert all(m.start < m.end and m.start % PAGE == m.end % PAGE == 0 for m in mappings)
    (stack,) = [m for m in mappings if m.path == b"[stack]"]
    assert stack.anonymous
    assert stack.bytes_wanted() == stack.end - stack.start
    assert any(m.path == os.fsencode(os.path.realpath("/proc/self/exe")) for m in mappings)
