"""Our blkif encoding and decoding against Xen's own structs, as the C compiler lays them out: each kind, both ways."""

import ctypes
import random
from pathlib import Path

import pytest

from hvd.transport._native import BlkifDecoder
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


def decoder():
    memory = bytearray(PAGES * 4096)
    found = BlkifDecoder(SECTORS, False, block.INDIRECT_SEGMENTS_MAX)
    found.add(FIRST_REF, memory, True)
    return found, memory


def decode_one(found, slot):
    (request,), missing = found.decode(bytes(slot))
    assert missing is None
    return request


def test_sizes_and_constants_are_xens(xen):
    assert (xen.request_size(), xen.segments_max()) == (block.REQUEST_SIZE, block.DIRECT_SEGMENTS_MAX)
    assert xen.response_size() <= block.RESPONSE_SIZE
    ours = [*block.Operation, *block.Status, block.INFO_READONLY]
    assert [xen.constant(index) for index in range(len(ours))] == ours


@pytest.mark.parametrize("sectors", [1, 7, 8, 9, 80, 88])
def test_c_reads_our_transfers(xen, sectors):
    refs = range(FIRST_REF, FIRST_REF + 11)
    segments = block.encode_segments(refs, sectors)
    for operation in (block.Operation.READ, block.Operation.WRITE):
        slot = block.encode_transfer(operation, 2**63 + 5, 2**39 + 1, segments)
        count = -(-sectors // 8)
        words = numbers_of(xen.read_transfer, slot)
        assert words[:4] == [operation, count, 2**63 + 5, 2**39 + 1]
        found = [tuple(words[4 + 3 * index : 7 + 3 * index]) for index in range(count)]
        assert found == [(refs[i], 0, 7 if 8 * (i + 1) <= sectors else sectors % 8 - 1) for i in range(count)]


def test_c_reads_our_flush_discard_and_indirect(xen):
    assert numbers_of(xen.read_transfer, block.encode_flush(9))[:4] == [3, 0, 9, 0]
    assert numbers_of(xen.read_discard, block.encode_discard(2**60, 2**50, 2**40))[:4] == [5, 2**60, 2**50, 2**40]
    slot = block.encode_indirect(block.Operation.WRITE, 2**60, 2**50, 256, 2**31)
    assert numbers_of(xen.read_indirect, slot)[:6] == [6, 1, 256, 2**60, 2**50, 2**31]


def test_we_read_cs_transfers(xen):
    source, (found, memory) = random.Random(1), decoder()
    for number in range(200):
        count, operation, sector = source.randint(1, 11), source.choice((0, 1)), source.randrange(2**39)
        refs = [FIRST_REF + source.randrange(PAGES) for _ in range(count)]
        ranges = [sorted(source.choices(range(8), k=2)) for _ in range(count)]
        slot = ctypes.create_string_buffer(block.REQUEST_SIZE)
        xen.write_transfer(slot, operation, U64(number), U64(sector), count, (U32 * count)(*refs),
                           (U8 * count)(*(r[0] for r in ranges)), (U8 * count)(*(r[1] for r in ranges)))  # fmt: skip
        request_id, op, status, at, sectors, views = decode_one(found, slot)
        assert (request_id, op, status, at) == (number, operation, block.Status.OKAY, sector)
        assert sectors == sum(last - first + 1 for first, last in ranges) == sum(map(len, views)) // 512
        memory[:] = bytes(len(memory))
        for view in views:
            view[:] = b"\1" * len(view)
        covered = {(ref - FIRST_REF) * 8 + s for ref, (first, last) in zip(refs, ranges, strict=True)
                   for s in range(first, last + 1)}  # fmt: skip
        assert {at // 512 for at in range(0, len(memory), 512) if memory[at]} == covered


def test_we_read_cs_discard_and_indirect(xen):
    found, memory = decoder()
    slot = ctypes.create_string_buffer(block.REQUEST_SIZE)
    xen.write_discard(slot, U64(4), U64(2**30), U64(77))
    assert decode_one(found, slot)[:5] == (4, block.Operation.DISCARD, block.Status.OKAY, 2**30, 77)
    segments = block.encode_segments(range(FIRST_REF + 1, FIRST_REF + 41), 40 * 8)
    memory[: len(segments)] = segments
    xen.write_indirect(slot, 0, U64(5), U64(2**30), 40, U32(FIRST_REF))
    *head, views = decode_one(found, slot)
    assert head == [5, block.Operation.READ, block.Status.OKAY, 2**30, 320]
    assert list(map(len, views)) == [40 * 4096]


@pytest.mark.parametrize("status", block.Status)
def test_responses_are_the_same_bytes(xen, status):
    slot = ctypes.create_string_buffer(block.RESPONSE_SIZE)
    xen.write_response(slot, U64(2**63 + 1), 6, int(status))
    assert slot.raw == block.encode_response(2**63 + 1, 6, status)
    assert block.decode_response(slot.raw) == (2**63 + 1, 6, status)
