"""Blocks that say whose they are, and the 16 bytes that stand for what was written."""

import random
import struct

import pytest

from hvd.transport.stamped_blocks import BLOCK_SIZE, block_content, content, content_digest, digest, parse_block

SEED, SEQUENCE, BLOCK = 5, (1 << 40) + 7, 4090


def changed(data, at, bit=0):
    """The same but for one bit."""
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_a_whole_block_says_whose_it_is_and_one_that_was_changed_anywhere_does_not():
    data = block_content(SEED, SEQUENCE, BLOCK)
    assert parse_block(data) == (SEED, SEQUENCE, BLOCK)
    assert not any(parse_block(changed(data, at)) for at in (0, 8, 16, 24, 32, 100, BLOCK_SIZE - 1))


@pytest.mark.parametrize("blocks", [1, 2, 64])
def test_the_digest_of_an_operations_content_is_known_without_making_it(blocks):
    assert digest(content(SEED, SEQUENCE, BLOCK, blocks)) == content_digest(SEED, SEQUENCE, BLOCK, blocks)


def test_another_stamp_has_another_digest():
    stamps = [(SEED, SEQUENCE, BLOCK, 2), (SEED + 1, SEQUENCE, BLOCK, 2), (SEED, SEQUENCE + 1, BLOCK, 2),
              (SEED, SEQUENCE, BLOCK + 1, 2), (SEED, SEQUENCE, BLOCK, 3)]  # fmt: skip
    assert len({content_digest(*stamp) for stamp in stamps}) == len(stamps)


def test_a_change_of_any_byte_changes_the_digest():
    data, source = content(SEED, SEQUENCE, BLOCK, 3), random.Random(1)
    places = {*range(32), *range(BLOCK_SIZE, BLOCK_SIZE + 32), len(data) - 1, *source.sample(range(len(data)), 200)}
    found = {digest(changed(data, at, source.randrange(8))) for at in places}
    assert len(found | {digest(data)}) == len(places) + 1


def test_blocks_in_another_order_or_of_two_operations_have_digests_of_their_own():
    one, two = block_content(SEED, SEQUENCE, BLOCK), block_content(SEED, SEQUENCE, BLOCK + 1)
    later = block_content(SEED, SEQUENCE + 1, BLOCK + 1)
    assert len({digest(data) for data in (one + two, two + one, one + later, one + one, one, one + two[:-1], b"")}) == 7


def test_what_is_hashed_for_a_content_has_another_digest_than_the_content():
    stamp = struct.pack("<4Q", SEED, SEQUENCE, BLOCK, 2)
    assert digest(stamp) != content_digest(SEED, SEQUENCE, BLOCK, 2)


def test_blocks_at_the_end_of_all_numbers_are_hashed_too():
    last = block_content(SEED, SEQUENCE, (1 << 64) - 1)
    assert digest(last) == content_digest(SEED, SEQUENCE, (1 << 64) - 1, 1)
    assert digest(last + last) != digest(last)
