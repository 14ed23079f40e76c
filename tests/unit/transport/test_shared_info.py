"""The page that tells the time: whoever reads it while it is written reads it again."""

import mmap
import os
import struct
import time

import pytest

from hvd.transport.pages import create_extent, open_read_only
from hvd.transport.shared_info import SharedInfo, TimeInfo, write_time_info

INFO = TimeInfo(started_ns=1000, paused_ns=200, wall_base_ns=5_000_000, domid=3, incarnation=2)


class Page(mmap.mmap):
    """A page that knows its descriptor."""

    descriptor: int


@pytest.fixture
def written():
    descriptor = create_extent(1, "hvd-shared-info")
    with Page(descriptor, mmap.PAGESIZE) as made:
        made.descriptor = descriptor
        yield made
    os.close(descriptor)


def read(page):
    return SharedInfo(page.descriptor).read()


def test_what_is_written_is_read(written):
    write_time_info(written, INFO)
    assert read(written) == INFO
    later = TimeInfo(1000, 900, 6_000_000, 3, 2)
    write_time_info(written, later)
    assert read(written) == later


def test_every_write_moves_the_version_from_even_to_even(written):
    versions = []
    for _ in range(300):
        write_time_info(written, INFO)
        versions.append(struct.unpack_from("<Q", written)[0])
    assert versions == list(range(2, 602, 2))


def test_a_page_whose_writer_died_in_the_middle_is_put_right_by_the_next(written):
    write_time_info(written, INFO)
    struct.pack_into("<Q", written, 0, 3)
    struct.pack_into("<Q", written, 8, 77)
    write_time_info(written, INFO)
    assert read(written) == INFO
    assert struct.unpack_from("<Q", written)[0] == 4


def test_a_page_that_is_being_written_for_ever_does_not_hold_its_reader(written):
    write_time_info(written, INFO)
    struct.pack_into("<Q", written, 0, 3)
    assert read(written) == INFO


def test_system_time_is_monotonic_time_since_the_start_without_pauses(written):
    now = time.monotonic_ns()
    write_time_info(written, TimeInfo(now - 5_000, 2_000, 0, 3, 1))
    before = time.monotonic_ns()
    told = SharedInfo(written.descriptor).system_time_ns()
    assert before - now + 3_000 <= told <= time.monotonic_ns() - now + 3_000


def test_the_wall_clock_counts_system_time_from_its_base(written):
    now = time.monotonic_ns()
    write_time_info(written, TimeInfo(now, 0, 10**18, 3, 1))
    info = SharedInfo(written.descriptor)
    before = info.system_time_ns()
    wall = info.wall_clock_ns()
    assert 10**18 + before <= wall <= 10**18 + info.system_time_ns()


def test_a_domain_reads_the_page_through_a_read_only_descriptor(written):
    write_time_info(written, INFO)
    descriptor = open_read_only(written.descriptor)
    assert SharedInfo(descriptor).read() == INFO
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, mmap.PAGESIZE)
    os.close(descriptor)
