"""The image: whole sectors in and out of scatter lists, holes, and what a file does that is not what it was."""

import errno
import os
from pathlib import Path

import pytest

from hvd.domains.block.image import Image
from hvd.transport.errors import LocalError

SECTORS = 64


def open_descriptors():
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "disk.img"
    file.write_bytes(b"".join(bytes([n]) * 512 for n in range(SECTORS)))
    return str(file)


@pytest.fixture
def image(path):
    opened = Image(path, readonly=False)
    yield opened
    opened.close()


def test_it_has_as_many_sectors_as_the_file(image):
    assert image.sectors == SECTORS


def test_reads_fill_every_part_of_the_memory_in_order(image):
    parts = [bytearray(512), bytearray(1024), bytearray(512)]
    image.read(3, [memoryview(part) for part in parts])
    assert b"".join(parts) == b"".join(bytes([n]) * 512 for n in (3, 4, 5, 6))


def test_more_parts_than_one_system_call_takes(image):
    parts = [bytearray(16) for _ in range(2000)]
    image.read(0, [memoryview(part) for part in parts])
    assert b"".join(parts) == b"".join(bytes([n]) * 512 for n in range(SECTORS))[:32000]


def test_writes_land_where_they_belong(image, path):
    image.write(10, [memoryview(b"a" * 512), memoryview(b"b" * 512)])
    with open(path, "rb") as file:
        data = file.read()
    assert data[9 * 512 : 13 * 512] == b"\x09" * 512 + b"a" * 512 + b"b" * 512 + b"\x0c" * 512


def test_a_discard_reads_as_zeros_and_keeps_the_size(image, path):
    image.discard(8, 16)
    memory = bytearray(512 * 18)
    image.read(7, [memoryview(memory)])
    assert memory == b"\x07" * 512 + bytes(512 * 16) + b"\x18" * 512
    assert Path(path).stat().st_size == SECTORS * 512


def test_a_file_that_became_shorter_is_eio(image, path):
    os.truncate(path, 512)
    with pytest.raises(OSError, match="ends at byte 512") as caught:
        image.read(0, [memoryview(bytearray(1024))])
    assert caught.value.errno == errno.EIO


def test_a_readonly_image_cannot_be_written(path):
    image = Image(path, readonly=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        image.write(0, [memoryview(bytes(512))])
    image.close()


@pytest.mark.parametrize("size", [1, 511, 513])
def test_part_of_a_sector_is_refused_with_the_size(tmp_path, size):
    (tmp_path / "odd").write_bytes(bytes(size))
    before = open_descriptors()
    with pytest.raises(LocalError, match=f"has {size} bytes, which is no multiple of 512"):
        Image(str(tmp_path / "odd"), readonly=False)
    assert open_descriptors() == before


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(LocalError, match="neither a file nor a block device"):
        Image(str(tmp_path), readonly=True)
