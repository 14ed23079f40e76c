"""A backend's batch of untrusted slots: each is answered once, and only granted memory and the image change."""

import mmap
import os
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.transport._native import BackRing, BlkBack, BlkNeed, Endpoint, FrontRing
from hvd.transport.protocols.block import INDIRECT_SEGMENTS_MAX, REQUEST_SIZE, RESPONSE_SIZE, Operation, Status

SECTORS = 10_000
FIRST_REF, PAGES = 50, 4
READONLY_REF = 60
GUARD = b"\xaa" * 4096
RESPONSE = struct.Struct("<QBBhI")

words = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2 * SECTORS), st.integers(2**64 - 300, 2**64 - 1))
refs = st.one_of(st.integers(45, 65), st.integers(0, 2**32 - 1), st.integers(FIRST_REF, FIRST_REF + PAGES - 1))
places = st.integers(0, 255) | st.integers(0, 8)
segment = st.builds(lambda ref, first, last: struct.pack("<IBBxx", ref, first, last), refs, places, places)
segments = st.lists(segment, max_size=11).map(b"".join)
heads = st.builds(struct.Struct("<BBHxxxxQQ").pack, st.integers(0, 7), st.integers(0, 12), st.just(0), words, words)
transfers = st.builds(bytes.__add__, heads, segments)
discards = st.builds(struct.Struct("<BxxxxxxxQQQ").pack, st.just(5), words, words, words)
indirects = st.builds(
    struct.Struct("<BBHxxxxQQHxxI").pack,
    st.just(6), st.integers(0, 6), st.integers(0, 300), words, words, st.just(0), refs,
)  # fmt: skip
anything = st.binary(min_size=REQUEST_SIZE, max_size=REQUEST_SIZE)
slots = st.one_of(anything, transfers, discards, indirects).map(lambda slot: slot.ljust(REQUEST_SIZE, b"\0"))


def image_descriptor():
    descriptor = os.memfd_create("image")
    os.truncate(descriptor, SECTORS * 512)
    os.pwrite(descriptor, b"\x55" * 65536, 0)
    return descriptor


def request_id(slot):
    return int.from_bytes(slot[8:16], "little")


def answers(front):
    slots = front.pop_many()
    return [RESPONSE.unpack_from(slots, at) for at in range(0, len(slots), RESPONSE_SIZE)]


@settings(max_examples=400)
@given(st.lists(slots, min_size=1, max_size=8), st.binary(max_size=4096), st.booleans(), st.booleans())
def test_no_slot_reaches_memory_that_was_not_granted(batch, table, readonly, persistent):
    arena = bytearray(GUARD + bytes(PAGES * 4096) + GUARD)
    granted = memoryview(arena)[4096:-4096]
    granted[: len(table)] = table
    private, ring_memory = bytes(GUARD), bytearray(4096)
    front, back_ring = FrontRing(ring_memory, REQUEST_SIZE, RESPONSE_SIZE), BackRing(ring_memory, 112, 16)
    front.init()
    image = image_descriptor()
    try:
        endpoint = Endpoint(mmap.mmap(-1, 4096), 0, -1, -1)
        back = BlkBack(back_ring, endpoint, image, SECTORS, readonly, INDIRECT_SEGMENTS_MAX, persistent)
        back.add(FIRST_REF, granted, True)
        back.add(READONLY_REF, private, False)
        for slot in batch:
            front.push(slot)
        answered = []
        held = back.serve(32)
        while held is not None:
            match held.need:
                case BlkNeed.MAP:
                    assert not FIRST_REF <= held.missing < FIRST_REF + PAGES and held.missing != READONLY_REF
                    status = Status.ERROR
                case BlkNeed.CONTROL:
                    assert held.operation in (Operation.FLUSH, Operation.DISCARD)
                    if held.operation == Operation.DISCARD:
                        assert not readonly and held.sectors > 0 and held.sector + held.sectors <= SECTORS
                    status = Status.OKAY
                case need:
                    assert need is BlkNeed.RELEASE and not persistent
                    status = Status(held.status)
            answered += answers(front)
            held = back.answer(status)
        answered += answers(front)
        assert [answer[0] for answer in answered] == [request_id(slot) for slot in batch]
        assert all(answer[2] == answer[4] == 0 and answer[3] in list(Status) for answer in answered), "padding is zero"
        assert arena[:4096] == GUARD and arena[-4096:] == GUARD and private == GUARD
        assert os.fstat(image).st_size == SECTORS * 512
        assert not readonly or os.pread(image, 65537, 0) == b"\x55" * 65536 + b"\0"
        back.clear()
        granted.release()
    finally:
        os.close(image)
