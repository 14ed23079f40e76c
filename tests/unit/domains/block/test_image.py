"""The image: its sectors, holes, and files that cannot be one."""

import os
from pathlib import Path

import pytest

from hvd.domains.block.image import Image
from hvd.transport.errors import LocalError

SECTORS = 64


def opened(path, flags=os.O_RDWR):
    return Image(str(path), os.open(path, flags))


def open_descriptors():
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "disk.img"
    file.write_bytes(b"".join(bytes([n]) * 512 for n in range(SECTORS)))
    return str(file)


@pytest.fixture
def image(path):
    made = opened(path)
    yield made
    made.close()


def test_it_has_as_many_sectors_as_the_file(image):
    assert image.sectors == SECTORS


def test_a_discard_reads_as_zeros_and_keeps_the_size(image, path):
    image.discard(8, 16)
    assert Path(path).read_bytes()[7 * 512 : 25 * 512] == b"\x07" * 512 + bytes(512 * 16) + b"\x18" * 512
    assert Path(path).stat().st_size == SECTORS * 512


def test_a_readonly_image_is_opened_for_reading_only(path):
    image = opened(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        image.discard(0, 1)
    image.close()


@pytest.mark.parametrize("size", [1, 511, 513])
def test_part_of_a_sector_is_refused_with_the_size(tmp_path, size):
    (tmp_path / "odd").write_bytes(bytes(size))
    before = open_descriptors()
    with pytest.raises(LocalError, match=f"has {size} bytes, which is no multiple of 512"):
        opened(tmp_path / "odd")
    assert open_descriptors() == before


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(LocalError, match="neither a file nor a block device"):
        opened(tmp_path, os.O_RDONLY)
