"""A backend's batch: its bound, what holds it up, and images that do not do what they are asked for."""

import errno
import mmap
import os
import struct

import pytest

from hvd.transport._native import BackRing, BlkBack, BlkNeed, Endpoint, FrontRing
from hvd.transport.errors import LocalError, PeerFault

SECTORS, REF, PAGES = 4096, 7, 260


class Ends:
    def __init__(self, *, pages=1, persistent=True, readonly=False, mapped=True):
        self.ring = bytearray(pages * 4096)
        self.front = FrontRing(self.ring, 112, 16)
        self.front.init()
        self.pool = bytearray(PAGES * 4096)
        self.image = os.memfd_create("image")
        os.truncate(self.image, SECTORS * 512)
        self.back_ring = BackRing(self.ring, 112, 16)
        endpoint = Endpoint(mmap.mmap(-1, 4096), 0, -1, -1)
        self.back = BlkBack(self.back_ring, endpoint, self.image, SECTORS, readonly, 256, persistent)
        if mapped:
            self.back.add(REF, self.pool, True)

    def ask(self, operation, request_id, sector=0, pages=1):
        segments = b"".join(struct.pack("<IBBxx", REF + page, 0, 7) for page in range(pages))
        self.front.push(struct.pack("<BBHxxxxQQ", operation, pages, 0, request_id, sector) + segments)

    def answers(self):
        slots = self.front.pop_many()
        return [struct.unpack_from("<QBxhxxxx", slots, at)[::2] for at in range(0, len(slots), 16)]


@pytest.fixture
def make():
    made = []

    def ends(**how):
        made.append(Ends(**how))
        return made[-1]

    yield ends
    for one in made:
        os.close(one.image)


def test_a_batch_is_32_requests_and_the_rest_waits(make):
    ends = make(pages=2)
    for number in range(40):
        ends.ask(0, number)
    assert ends.back.serve(1000) is None
    assert ends.answers() == [(number, 0) for number in range(32)]
    assert ends.back.serve(3) is None
    assert ends.answers() == [(number, 0) for number in range(32, 35)]


def test_what_is_behind_a_held_request_waits_for_its_answer(make):
    ends = make()
    for request_id, operation in enumerate((1, 3, 0)):
        ends.ask(operation, request_id)
    held = ends.back.serve(32)
    assert (held.need, held.operation) == (BlkNeed.CONTROL, 3)
    assert ends.answers() == [(0, 0)]
    with pytest.raises(LocalError, match="held"):
        ends.back.serve(32)
    assert ends.back.answer(-2) is None
    assert ends.answers() == [(1, -2), (2, 0)]
    with pytest.raises(LocalError, match="no request is held"):
        ends.back.answer(0)


def test_a_missing_grant_is_named_and_the_request_goes_on_when_it_is_there(make):
    ends = make(mapped=False)
    ends.pool[:4096] = b"w" * 4096
    ends.ask(1, 5, sector=8)
    held = ends.back.serve(32)
    assert (held.need, held.missing) == (BlkNeed.MAP, REF)
    ends.back.add(REF, ends.pool, True)
    assert ends.back.resume() is None
    assert ends.answers() == [(5, 0)]
    assert os.pread(ends.image, 4096, 4096) == b"w" * 4096


def test_reads_into_pages_that_may_only_be_read_are_refused(make):
    ends = make(mapped=False)
    ends.back.add(REF, bytes(4096), False)
    ends.ask(0, 1)
    ends.ask(1, 2)
    assert ends.back.serve(32) is None
    assert ends.answers() == [(1, -1), (2, 0)]


def test_without_persistent_grants_every_request_is_held_for_their_release(make):
    ends = make(persistent=False)
    ends.ask(0, 1)
    ends.ask(77, 2)
    held = ends.back.serve(32)
    for number, status in ((1, 0), (2, -2)):
        assert (held.need, held.status) == (BlkNeed.RELEASE, status)
        assert ends.answers() == []
        held = ends.back.answer(held.status)
        assert ends.answers() == [(number, status)]
    assert held is None


@pytest.mark.parametrize("pages", [1, 11])
def test_a_file_that_became_shorter_is_eio(make, pages):
    ends = make()
    os.truncate(ends.image, 512)
    ends.ask(0, 1, pages=pages)
    held = ends.back.serve(32)
    assert (held.need, held.errno) == (BlkNeed.FAILED, errno.EIO)
    assert ends.back.answer(-1) is None
    assert ends.answers() == [(1, -1)]


def test_a_transfer_that_the_system_refuses_is_reported_with_its_errno(make):
    ends = make()
    readonly = os.open(f"/proc/self/fd/{ends.image}", os.O_RDONLY)
    os.dup2(readonly, ends.image)
    os.close(readonly)
    ends.ask(1, 1)
    held = ends.back.serve(32)
    assert (held.need, held.errno) == (BlkNeed.FAILED, errno.EBADF)


def test_a_readonly_disk_answers_writes_and_discards_with_an_error(make):
    ends = make(readonly=True)
    ends.ask(1, 1)
    ends.front.push(struct.pack("<BxxxxxxxQQQ", 5, 2, 0, 8))
    ends.ask(0, 3)
    assert ends.back.serve(32) is None
    assert ends.answers() == [(1, -1), (2, -1), (3, 0)]


def test_an_index_that_claims_too_much_is_the_frontends_fault(make):
    ends = make()
    ends.ring[0:4] = (1000).to_bytes(4, "little")
    with pytest.raises(PeerFault, match="req_prod 1000"):
        ends.back.serve(32)


def test_a_long_transfer_keeps_its_errno_over_the_interpreter_lock(make):
    ends = make()
    read, write = os.pipe()
    os.dup2(read, ends.image)  # preadv of a pipe: ESPIPE
    table = b"".join(struct.pack("<IBBxx", REF + 1 + page, 0, 7) for page in range(256))
    ends.pool[: len(table)] = table
    ends.front.push(struct.pack("<BBHxxxxQQHxxI", 6, 0, 256, 9, 0, 0, REF))
    held = ends.back.serve(32)
    assert (held.need, held.errno) == (BlkNeed.FAILED, errno.ESPIPE)
    os.close(read)
    os.close(write)


def test_mapped_memory_cannot_go_until_it_is_cleared(make):
    ends = make()
    with pytest.raises(BufferError):
        ends.pool.append(0)
    ends.back.clear()
    ends.pool.append(0)
