"""The checker of a disk, on images and histories made by hand."""

import time
import tracemalloc

import pytest

from hvd.toolstack.faults import checker as checker_module
from hvd.toolstack.faults.checker import Checker
from hvd.toolstack.faults.history import HistoryChecker
from hvd.transport.history import Event, Kind, Phase, pack
from hvd.transport.stamped_blocks import BLOCK_SIZE, content, content_digest, digest, parse_block

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


def test_an_answer_for_other_blocks_than_were_asked_for_is_unexpected(image, written):
    wrote(written, 1, 2, 3)
    put(image, 1, 2, 3)
    written.record(Phase.INVOKED, Kind.WRITE, 2, 0, 1, digest(content(SEED, 2, 0, 1)))
    written.record(Phase.OK, Kind.WRITE, 2, 2, 1, digest(content(SEED, 2, 0, 1)))
    verdict = judged(image, written)
    assert (verdict.unexpected, verdict.lost) == (1, 0)


def test_a_write_of_a_flush_is_unexpected(image, written):
    written.record(Phase.INVOKED, Kind.FLUSH, 1)
    written.record(Phase.OK, Kind.WRITE, 1, 0, 1)
    verdict = judged(image, written)
    assert (verdict.unexpected, verdict.compared) == (1, 0)


def test_what_its_operation_did_not_cover_is_unexpected_there(image, written):
    wrote(written, 1, 0, 2)
    wrote(written, 2, 1)
    put(image, 2, 0, 2)
    assert judged(image, written).unexpected == 1


# ---- what a long history may forget ----------------------------------------------------------------------------------


def overwritten(written, checker, since, block, times=50):
    """So often, and the checker has looked at each."""
    for sequence in range(since, since + times):
        wrote(written, sequence, block)
        checker.follow()


@pytest.mark.parametrize("make", [HistoryChecker, lambda acks: Checker("", acks, SEED)], ids=["history", "disk"])
def test_what_is_kept_of_a_write_that_was_overwritten_is_two_moments(written, make):
    checker = make(str(written.path))
    before = kept_over(written, checker, range(5_000))
    assert kept_over(written, checker, range(5_000, 30_000)) - before < 20 * 25_000


def kept_over(written, checker, sequences):
    """Bytes that the checker has more when it has taken these in, each of which writes one of eight blocks."""
    with written.path.open("ab") as file:
        for sequence in sequences:
            stamp = sequence, sequence % 8, 1
            for phase in (Phase.INVOKED, Phase.OK):
                file.write(pack(Event(phase, Kind.WRITE, *stamp, content_digest(SEED, *stamp)), sequence))
    tracemalloc.start()
    try:
        checker.follow()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_what_was_overwritten_often_is_forgotten_and_still_a_loss_when_it_is_found(image, written):
    checker = Checker(str(image), str(written.path), SEED)
    overwritten(written, checker, 1, 0)
    assert len(checker._done) < 5
    assert not checker._unsure
    put(image, 1, 0)
    assert checker.check().lost == 1
    put(image, 50, 0)
    assert (checker.check().lost, checker.verdict.unexpected) == (1, 0)


@pytest.mark.parametrize("phase", [None, Phase.FAILED])
def test_a_write_that_may_still_land_is_remembered_until_all_its_blocks_are_overwritten(image, written, phase):
    checker = Checker(str(image), str(written.path), SEED)
    wrote(written, 1, 1)
    wrote(written, 2, 0, 2, answered=False)
    if phase is not None:
        written.record(phase, Kind.WRITE, 2, 0, 2)
    overwritten(written, checker, 3, 0)
    put(image, 52, 0)
    put(image, 2, 1)
    assert checker.check().intact
    wrote(written, 53, 1)
    overwritten(written, checker, 54, 0)
    put(image, 103, 0)
    assert (checker.check().lost, checker.verdict.unexpected) == (1, 0)
    assert bool(checker._unsure) == (phase is None)


def test_an_answer_that_comes_when_its_write_is_overwritten_long_since_is_no_surprise(image, written):
    checker = Checker(str(image), str(written.path), SEED)
    wrote(written, 1, 0, answered=False)
    overwritten(written, checker, 2, 0)
    written.record(Phase.OK, Kind.WRITE, 1, 0, 1)
    put(image, 51, 0)
    assert checker.check().intact


def test_a_write_that_is_asked_for_and_overwritten_while_we_look_is_no_surprise(image, written, monkeypatch):
    """The block was read before it was overwritten: what was asked for meanwhile is known, whatever came after."""
    wrote(written, 1, 0)
    put(image, 2, 0)

    def read_meanwhile(data):
        for sequence in range(2, 12):
            wrote(written, sequence, 0)
        return parse_block(data)

    monkeypatch.setattr(checker_module, "parse_block", read_meanwhile)
    assert judged(image, written).intact


@pytest.mark.parametrize("answered", [False, True])
def test_a_block_that_is_being_written_is_judged_when_it_is_whole(image, written, monkeypatch, answered):
    """Whoever writes it has lost its CPU in the middle of it, and may be answered before we see that."""
    wrote(written, 1, 0)
    wrote(written, 2, 0, answered=False)
    put(image, 1, 0)
    looks = []

    def read_meanwhile(data):
        looks.append(data)
        if len(looks) < 50:
            return None
        if len(looks) == 50 and answered:
            written.record(Phase.OK, Kind.WRITE, 2, 0, 1, digest(content(SEED, 2, 0, 1)))
            put(image, 2, 0)
            return None
        return parse_block(data)

    monkeypatch.setattr(checker_module, "parse_block", read_meanwhile)
    assert judged(image, written).intact
    assert len(looks) == (51 if answered else 50)


@pytest.mark.parametrize("block", [0, 1])
def test_a_block_that_does_not_become_whole_is_torn_and_at_once_where_nobody_writes_it(
    image, written, monkeypatch, block
):
    wrote(written, 1, 0)
    wrote(written, 2, block, answered=False)
    monkeypatch.setattr(checker_module, "PATIENCE_S", 0.05)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert judged(image, written).torn == 1
    assert bool(waits) == (block == 0)
