"""Both ends of our blkif against Xen's own structs, as the C compiler lays them out: each kind of slot, both ways."""

import ctypes
import errno
import mmap
import os
import random
from pathlib import Path

import pytest

from hvd.transport._native import BackRing, BlkBack, BlkFront, BlkNeed, Endpoint, FrontRing
from hvd.transport.protocols import block

HEADER = Path("/usr/include/xen/io/blkif.h")
SOURCE = Path(__file__).with_name("xen_blkif.c")
SECTORS = 1 << 40
FIRST_REF = 1000
PAGES = 64
U64, U32, U8 = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint8


@pytest.fixture(scope="module")
def xen(compile_native):
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is absent: install libxen-dev for the differential test against Xen's own structs")
    # Xen's headers are not written for -Wextra and -Wconversion.
    flags = ("-O2", "-shared", "-fPIC", "-Wno-conversion", "-Wno-sign-conversion", "-Wno-extra", "-Wno-sign-compare")
    return ctypes.CDLL(str(compile_native(SOURCE, "gcc", *flags)))


def numbers_of(reader, slot):
    words = (U64 * 64)()
    reader(slot.ljust(block.REQUEST_SIZE, b"\0"), words)
    return list(words)


class Ends:
    """A ring of one page, a pool of granted pages, a sparse image."""

    def __init__(self):
        self.ring, self.pool = bytearray(4096), bytearray(PAGES * 4096)
        self.front_ring = FrontRing(self.ring, block.REQUEST_SIZE, block.RESPONSE_SIZE)
        self.front_ring.init()
        self.back_ring = BackRing(self.ring, block.REQUEST_SIZE, block.RESPONSE_SIZE)
        self.endpoint = Endpoint(mmap.mmap(-1, 4096), 0, -1, -1)
        self.image = os.memfd_create("image")
        os.truncate(self.image, SECTORS * 512)
        self.sent = 0

    def front(self):
        """Our frontend, attached."""
        front = BlkFront(self.pool, FIRST_REF, 10**15)
        front.attach(self.front_ring, self.endpoint, "test", SECTORS, block.INDIRECT_SEGMENTS_MAX)
        return front

    def back(self):
        """Our backend, with the pool mapped."""
        back = BlkBack(self.back_ring, self.endpoint, self.image, SECTORS, False, block.INDIRECT_SEGMENTS_MAX, True)
        back.add(FIRST_REF, self.pool, True)
        return back

    def sent_slot(self):
        """The bytes of the next request in the ring."""
        at = 64 + self.sent % 32 * block.REQUEST_SIZE
        self.sent += 1
        return bytes(self.ring[at : at + block.REQUEST_SIZE])


@pytest.fixture
def ends():
    ends = Ends()
    yield ends
    os.close(ends.image)


def test_sizes_and_constants_are_xens(xen):
    assert (xen.request_size(), xen.segments_max()) == (block.REQUEST_SIZE, block.DIRECT_SEGMENTS_MAX)
    assert xen.response_size() <= block.RESPONSE_SIZE
    ours = [*block.Operation, *block.Status, block.INFO_READONLY]
    assert [xen.constant(index) for index in range(len(ours))] == ours


@pytest.mark.parametrize("sectors", [1, 7, 8, 9, 80, 88])
def test_c_reads_our_transfers(xen, ends, sectors):
    front, count = ends.front(), -(-sectors // 8)
    for operation in (block.Operation.READ, block.Operation.WRITE):
        if operation is block.Operation.READ:
            request_id = front.submit_read(2**39 + 1, sectors, None)
        else:
            request_id = front.submit_write(2**39 + 1, bytes(sectors * 512))
        words = numbers_of(xen.read_transfer, ends.sent_slot())
        assert words[:4] == [operation, count, request_id, 2**39 + 1]
        found = [tuple(words[4 + 3 * index : 7 + 3 * index]) for index in range(count)]
        first = found[0][0]
        assert FIRST_REF <= first <= FIRST_REF + PAGES - count
        assert found == [(first + i, 0, 7 if 8 * (i + 1) <= sectors else sectors % 8 - 1) for i in range(count)]


def test_c_reads_our_flush_discard_and_indirect(xen, ends):
    front = ends.front()
    request_id = front.submit_flush()
    assert numbers_of(xen.read_transfer, ends.sent_slot())[:4] == [3, 0, request_id, 0]
    request_id = front.submit_discard(2**35, 2**38)
    assert numbers_of(xen.read_discard, ends.sent_slot())[:4] == [5, request_id, 2**35, 2**38]
    request_id = front.submit_write(2**33, bytes(20 * 4096 - 512))
    *head, table_ref = numbers_of(xen.read_indirect, ends.sent_slot())[:6]
    assert head == [6, 1, 20, request_id, 2**33]
    table = ends.pool[(table_ref - FIRST_REF) * 4096 :][: 20 * 8]
    segments = [(int.from_bytes(table[at : at + 4], "little"), *table[at + 4 : at + 8]) for at in range(0, 160, 8)]
    assert segments == [(segments[0][0] + i, 0, 7 - (i == 19), 0, 0) for i in range(20)]
    assert not segments[0][0] <= table_ref < segments[0][0] + 20


def test_we_read_cs_transfers(xen, ends):
    source, back = random.Random(1), ends.back()
    for number in range(200):
        count, operation, sector = source.randint(1, 11), source.choice((0, 1)), source.randrange(2**39)
        refs = [FIRST_REF + ref for ref in source.sample(range(PAGES), count)]
        ranges = [sorted(source.choices(range(8), k=2)) for _ in range(count)]
        slot = ctypes.create_string_buffer(block.REQUEST_SIZE)
        xen.write_transfer(slot, operation, U64(number), U64(sector), count, (U32 * count)(*refs),
                           (U8 * count)(*(r[0] for r in ranges)), (U8 * count)(*(r[1] for r in ranges)))  # fmt: skip
        parts = [((ref - FIRST_REF) * 4096 + first * 512, (ref - FIRST_REF) * 4096 + (last + 1) * 512)
                 for ref, (first, last) in zip(refs, ranges, strict=True)]  # fmt: skip
        length = sum(end - begin for begin, end in parts)
        data = source.randbytes(length)
        expected = bytearray(b"\xee" * len(ends.pool))
        ends.pool[:] = expected
        if operation == block.Operation.READ:
            os.pwrite(ends.image, data, sector * 512)
        at = 0
        for begin, end in parts:
            expected[begin:end] = data[at : at + end - begin]
            at += end - begin
        if operation == block.Operation.WRITE:
            ends.pool[:] = expected
        ends.front_ring.push(slot.raw)
        assert back.serve(32) is None
        assert ends.front_ring.pop() == number.to_bytes(8, "little") + bytes([operation]) + bytes(7)
        assert ends.pool == expected
        assert os.pread(ends.image, length, sector * 512) == data


def test_we_read_cs_discard_and_indirect(xen, ends):
    back = ends.back()
    slot = ctypes.create_string_buffer(block.REQUEST_SIZE)
    xen.write_discard(slot, U64(4), U64(2**30), U64(77))
    ends.front_ring.push(slot.raw)
    held = back.serve(32)
    assert held is not None
    assert (held.need, held.operation, held.sector, held.sectors) == (BlkNeed.CONTROL, 5, 2**30, 77)
    assert back.answer(block.Status.OKAY) is None
    table = b"".join((FIRST_REF + 1 + index).to_bytes(4, "little") + b"\0\7\0\0" for index in range(40))
    ends.pool[: len(table)] = table
    xen.write_indirect(slot, 0, U64(5), U64(2**30), 40, U32(FIRST_REF))
    os.pwrite(ends.image, b"\x77" * (40 * 4096 + 1), 2**39)
    ends.front_ring.push(slot.raw)
    assert back.serve(32) is None
    assert ends.pool[4096 : 41 * 4096] == b"\x77" * (40 * 4096) and not any(ends.pool[41 * 4096 :])


STATUS = {block.Status.OKAY: 0, block.Status.ERROR: errno.EIO, block.Status.EOPNOTSUPP: errno.EOPNOTSUPP}


@pytest.mark.parametrize("status", block.Status)
def test_responses_are_the_same_bytes(xen, ends, status):
    slot = ctypes.create_string_buffer(block.RESPONSE_SIZE)
    xen.write_response(slot, U64(2**63 + 1), 5, int(status))
    one_sector = [number.to_bytes(8, "little") for number in (block.Operation.DISCARD, 2**63 + 1, 0, 1)]
    ends.front_ring.push(b"".join(one_sector))
    back = ends.back()
    assert back.serve(1) is not None
    back.answer(status)
    assert ends.front_ring.pop() == slot.raw


@pytest.mark.parametrize("status", block.Status)
def test_we_read_cs_responses(xen, ends, status):
    front, slot = ends.front(), ctypes.create_string_buffer(block.RESPONSE_SIZE)
    request_id = front.submit_flush()
    ends.back_ring.pop()
    xen.write_response(slot, U64(request_id), 3, int(status))
    ends.back_ring.push(slot.raw)
    front.collect()
    assert front.take_all() == [(request_id, STATUS[status], b"")]
