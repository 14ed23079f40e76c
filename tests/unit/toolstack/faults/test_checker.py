"""The checker of a disk, on images and histories made by hand."""

import pytest

from hvd.toolstack.faults.checker import Checker
from hvd.transport.history import Kind, Phase
from hvd.transport.stamped_blocks import BLOCK_SIZE, content, digest

SEED = 5


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(8 * BLOCK_SIZE))
    return path


def put(image, sequence, block, blocks=1, seed=SEED):
    data = bytearray(image.read_bytes())
    data[block * BLOCK_SIZE : (block + blocks) * BLOCK_SIZE] = content(seed, sequence, block, blocks)
    image.write_bytes(data)


def wrote(written, sequence, block, blocks=1, *, answered=True):
    hashed = digest(content(SEED, sequence, block, blocks))
    written.record(Phase.INVOKED, Kind.WRITE, sequence, block, blocks, hashed)
    if answered:
        written.record(Phase.OK, Kind.WRITE, sequence, block, blocks, hashed)


def judged(image, written):
    return Checker(str(image), str(written.path), SEED).check()


def test_what_was_acknowledged_and_is_there_is_intact(image, written):
    wrote(written, 1, 2, 3)
    put(image, 1, 2, 3)
    verdict = judged(image, written)
    assert verdict.intact
    assert verdict.compared == 3


def test_a_write_of_unknown_fate_may_be_there_or_not(image, written):
    wrote(written, 1, 0)
    wrote(written, 2, 0, answered=False)
    put(image, 1, 0)
    assert judged(image, written).intact
    put(image, 2, 0)
    assert judged(image, written).intact


def test_an_older_write_in_its_place_is_a_loss(image, written):
    wrote(written, 1, 0)
    wrote(written, 2, 0)
    put(image, 1, 0)
    assert judged(image, written).lost == 1


def test_nothing_in_its_place_is_torn(image, written):
    wrote(written, 1, 0)
    assert judged(image, written).torn == 1


def test_a_block_of_another_place_or_writer_is_misplaced(image, written):
    wrote(written, 1, 0)
    wrote(written, 2, 1)
    put(image, 1, 0, seed=SEED + 1)
    data = bytearray(image.read_bytes())
    data[BLOCK_SIZE : 2 * BLOCK_SIZE] = content(SEED, 2, 7, 1)
    image.write_bytes(data)
    assert judged(image, written).misplaced == 2


def test_a_write_that_nobody_asked_for_is_unexpected(image, written):
    wrote(written, 1, 0)
    put(image, 9, 0)
    assert judged(image, written).unexpected == 1


def test_a_history_whose_hash_is_another_contents_is_found(image, written):
    written.record(Phase.INVOKED, Kind.WRITE, 1, 0, 1, bytes(16))
    assert judged(image, written).torn == 1
