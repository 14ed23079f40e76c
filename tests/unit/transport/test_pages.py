"""Extents: what may be mapped, what may not, and what is left behind."""

import gc
import mmap
import os
from pathlib import Path

import pytest

from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.pages import PAGE_SIZE, Extent, create_extent, open_read_only, seal_future_writes, seal_seals


def descriptors():
    """Open descriptors, without the one that lists them."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return {fd for fd in numbers if Path(f"/proc/self/fd/{fd}").is_symlink()}


@pytest.fixture
def fd():
    created = create_extent(3, "hvd-test")
    yield created
    os.close(created)


def test_an_extent_is_zeroed_allocated_and_of_whole_pages(fd):
    status = os.fstat(fd)
    assert status.st_size == 3 * PAGE_SIZE
    assert status.st_blocks * 512 == 3 * PAGE_SIZE
    assert os.pread(fd, 4 * PAGE_SIZE, 0) == bytes(3 * PAGE_SIZE)
    assert not os.get_inheritable(fd)


@pytest.mark.parametrize("size", [0, PAGE_SIZE, 4 * PAGE_SIZE])
def test_an_extent_can_be_neither_shrunk_nor_grown(fd, size):
    with pytest.raises(PermissionError):
        os.ftruncate(fd, size)


@pytest.mark.parametrize("pages", [0, -1])
def test_an_extent_of_no_pages_is_refused(pages, fd):
    with pytest.raises(LocalError):
        create_extent(pages, "hvd-test")
    with pytest.raises(LocalError):
        Extent.map(fd, pages, writable=True)


def test_two_mappings_share_their_bytes(fd):
    with Extent.map(fd, 3, writable=True) as ours, Extent.map(fd, 2, writable=False) as theirs:
        ours.page(1)[:5] = b"hello"
        assert bytes(theirs.view[PAGE_SIZE : PAGE_SIZE + 5]) == b"hello"
        assert len(ours) == 3
        assert len(theirs.view) == 2 * PAGE_SIZE


def test_pages_from_anywhere_are_mapped_once_more_beside_each_other(fd):
    with Extent.map(fd, 3, writable=True) as first, Extent.map(fd, 1, writable=True) as second:
        gathered = Extent.gather([first.page(2), second.page(0), first.page(2)])
        first.page(2)[:5] = b"third"
        gathered.page(1)[:5] = b"first"
        assert bytes(gathered.view[:5]) == bytes(gathered.view[2 * PAGE_SIZE :][:5]) == b"third"
        assert bytes(first.page(0)[:5]) == b"first"
    gathered.page(0)[:5] = b"stays"
    assert os.pread(fd, 5, 2 * PAGE_SIZE) == b"stays"
    gathered.close()


def test_only_whole_pages_that_can_be_written_are_gathered(fd):
    with Extent.map(fd, 3, writable=True) as ours, Extent.map(fd, 3, writable=False) as theirs:
        pieces = [ours.page(0), ours.page(0)[:100], theirs.page(1)]
        for pages in ([], [ours.view], [pieces[1]], [pieces[0], pieces[2]]):
            with pytest.raises(LocalError):
                Extent.gather(pages)
        for piece in pieces:
            piece.release()
    with pytest.raises(LocalError, match="once more"):
        Extent.gather([memoryview(mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE))])


def test_a_mapping_keeps_no_descriptor(fd):
    before = descriptors()
    extent = Extent.map(fd, 3, writable=True)
    assert descriptors() == before
    extent.close()


def test_a_peers_extent_shorter_than_claimed_is_its_fault_and_no_sigbus(fd):
    with pytest.raises(PeerFault, match="16384 bytes holds 12288"):
        Extent.map(fd, 4, writable=True)


def test_an_extent_that_could_still_shrink_is_refused():
    unsealed = os.memfd_create("hvd-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(unsealed, PAGE_SIZE)
        with pytest.raises(PeerFault, match="not sealed"):
            Extent.map(unsealed, 1, writable=True)
    finally:
        os.close(unsealed)


def test_a_descriptor_that_is_no_extent_is_refused():
    reader, writer = os.pipe()
    with pytest.raises(PeerFault):
        Extent.map(reader, 1, writable=False)
    os.close(reader)
    os.close(writer)
    with pytest.raises(LocalError):
        Extent.map(reader, 1, writable=False)


def test_a_read_only_mapping_cannot_be_written(fd):
    with Extent.map(fd, 1, writable=False) as extent:
        assert extent.view.readonly
        with pytest.raises(TypeError):
            extent.view[0] = 1


def test_a_read_only_descriptor_maps_for_reading_only(fd):
    reader = open_read_only(fd)
    try:
        Extent.map(reader, 3, writable=False).close()
        with pytest.raises(LocalError, match="for writing"):
            Extent.map(reader, 3, writable=True)
        with pytest.raises(OSError):
            os.pwrite(reader, b"x", 0)
        assert not os.get_inheritable(reader)
    finally:
        os.close(reader)


def test_after_the_seal_the_old_mapping_writes_and_a_new_one_cannot(fd):
    with Extent.map(fd, 3, writable=True) as old:
        seal_future_writes(fd)
        old.view[0] = 7
        with pytest.raises(LocalError, match="for writing"):
            Extent.map(fd, 3, writable=True)
        with Extent.map(fd, 3, writable=False) as new:
            assert new.view[0] == 7


def test_after_the_seals_are_sealed_nobody_adds_one(fd):
    seal_seals(fd)
    with pytest.raises(PermissionError):
        seal_future_writes(fd)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 4), (3, 1), (2, 2), (0, 0), (1, -1)])
def test_pages_outside_the_extent_are_refused(fd, first, count):
    with Extent.map(fd, 3, writable=True) as extent, pytest.raises(LocalError):
        extent.pages(first, count)


def test_pages_are_cut_at_their_borders(fd):
    with Extent.map(fd, 3, writable=True) as extent:
        with extent.pages(1, 2) as pages:
            pages[:] = b"\xff" * len(pages)
        assert bytes(extent.view) == bytes(PAGE_SIZE) + b"\xff" * (2 * PAGE_SIZE)


def test_an_extent_in_use_is_not_unmapped(fd):
    extent = Extent.map(fd, 1, writable=True)
    view = extent.page(0)
    with pytest.raises(LocalError, match="in use"):
        extent.close()
    view[0] = 1  # still there
    assert extent.view[0] == 1
    view.release()
    extent.close()
    extent.close()
    with pytest.raises(ValueError):
        extent.page(0)


def test_a_forgotten_extent_is_unmapped(fd):
    Extent.map(fd, 3, writable=True).view[0] = 1
    gc.collect()
    with open("/proc/self/maps") as maps:
        assert "hvd-test" not in maps.read()


def test_a_page_is_the_systems_page():
    assert mmap.PAGESIZE % PAGE_SIZE == 0
