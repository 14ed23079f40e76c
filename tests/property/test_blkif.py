"""The decoder of untrusted slots: whatever they say, what comes out is an error, a ref to map, or granted memory."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.transport._native import BlkifDecoder
from hvd.transport.protocols import block

SECTORS = 10_000
FIRST_REF, PAGES = 50, 4
READONLY_REF = 60
GUARD = b"\xaa" * 4096

words = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2 * SECTORS), st.integers(2**64 - 300, 2**64 - 1))
refs = st.one_of(st.integers(45, 65), st.integers(0, 2**32 - 1))
places = st.integers(0, 255) | st.integers(0, 8)
segment = st.builds(lambda ref, first, last: struct.pack("<IBBxx", ref, first, last), refs, places, places)
segments = st.lists(segment, max_size=11).map(b"".join)
heads = st.builds(struct.Struct("<BBHxxxxQQ").pack, st.integers(0, 7), st.integers(0, 12), st.just(0), words, words)
transfers = st.builds(bytes.__add__, heads, segments)
discards = st.builds(block.encode_discard, words, words, words)
indirects = st.builds(block.encode_indirect, st.sampled_from(block.Operation), words, words, st.integers(0, 300), refs)
anything = st.binary(min_size=112, max_size=112)
slots = st.one_of(anything, transfers, discards, indirects).map(lambda slot: slot.ljust(112, b"\0"))


@settings(max_examples=400)
@given(st.lists(slots, min_size=1, max_size=4), st.binary(max_size=4096), st.booleans())
def test_no_slot_reaches_memory_that_was_not_granted(batch, table, readonly):
    arena = bytearray(GUARD + bytes(PAGES * 4096) + GUARD)
    granted = memoryview(arena)[4096:-4096]
    granted[: len(table)] = table
    private = bytes(GUARD)
    decoder = BlkifDecoder(SECTORS, readonly, block.INDIRECT_SEGMENTS_MAX)
    decoder.add(FIRST_REF, granted, True)
    decoder.add(READONLY_REF, private, False)
    decoded, missing = decoder.decode(b"".join(batch))
    assert (missing is None) == (len(decoded) == len(batch))
    if missing is not None:
        assert not FIRST_REF <= missing < FIRST_REF + PAGES and missing != READONLY_REF
    for _, operation, status, sector, sectors, memory in decoded:
        if status != block.Status.OKAY:
            assert memory == []
            continue
        assert operation in (0, 1, 3, 5)
        assert not (readonly and operation in (1, 5))
        assert operation == 3 or (sectors > 0 and sector + sectors <= SECTORS)
        assert operation in (3, 5) or sum(map(len, memory)) == sectors * 512
        if operation == block.Operation.READ:
            for view in memory:
                view[:] = b"\x55" * len(view)
    assert arena[:4096] == GUARD and arena[-4096:] == GUARD and private == GUARD
    decoder.clear()
    granted.release()
