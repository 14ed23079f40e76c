"""The judge of durability, on logs and histories written by hand."""

import pytest

from hvd.toolstack.faults.durability import Cuts, judge
from hvd.transport.errors import LocalError
from hvd.transport.history import Event, Kind, Phase
from hvd.transport.stamped_blocks import BLOCK_SIZE, content, digest
from hvd.transport.write_log import LogKind, LogRecord

SEED = 3
BASE = bytes(8 * BLOCK_SIZE)


def write(at, sequence, block, blocks=1):
    data = content(SEED, sequence, block, blocks)
    return LogRecord(LogKind.WRITE, block * BLOCK_SIZE, len(data), at, data)


def mark(at, kind=LogKind.SYNC):
    return LogRecord(kind, 0, 0, at)


def wrote(invoked, answered, sequence, block, blocks=1):
    hashed = digest(content(SEED, sequence, block, blocks))
    return [Event(phase, Kind.WRITE, sequence, block, blocks, hashed, at)
            for phase, at in ((Phase.INVOKED, invoked), (Phase.OK, answered))]  # fmt: skip


def flushed(invoked, answered, sequence):
    times = ((Phase.INVOKED, invoked), (Phase.OK, answered))
    return [Event(phase, Kind.FLUSH, sequence, at_ns=at) for phase, at in times]


def judged(log, *events, **cuts):
    return judge(BASE, log, sorted((e for pair in events for e in pair), key=lambda e: e.at_ns), 1, Cuts(**cuts))


def test_what_was_synced_before_its_flush_was_answered_is_never_lost():
    log = [write(10, 1, 0), write(20, 2, 1), mark(30), write(50, 3, 0)]
    assert not judged(log, wrote(9, 11, 1, 0), wrote(19, 21, 2, 1), flushed(25, 35, 4), wrote(49, 51, 3, 0)).lost


def test_a_flush_that_was_answered_before_the_sync_is_a_loss():
    assert judged([write(10, 1, 0), mark(40)], wrote(9, 11, 1, 0), flushed(25, 35, 4)).lost


def test_a_flush_that_was_answered_without_a_sync_is_a_loss():
    assert judged([write(10, 1, 0)], wrote(9, 11, 1, 0), flushed(25, 35, 4)).lost


def test_a_backend_that_says_it_has_answered_before_the_sync_is_a_loss_whatever_the_guest_knows():
    assert judged([write(10, 1, 0), mark(20, LogKind.FLUSHED), mark(30)]).lost
    assert not judged([write(10, 1, 0), mark(20), mark(30, LogKind.FLUSHED)]).lost


def test_a_write_that_was_answered_after_the_flush_was_invoked_is_not_promised():
    log = [write(10, 1, 0), mark(20), write(26, 2, 1)]
    assert not judged(log, wrote(9, 11, 1, 0), wrote(24, 27, 2, 1), flushed(15, 30, 3)).lost


def test_it_is_promised_by_the_flush_after():
    log = [write(10, 1, 0), mark(20), write(26, 2, 1)]
    assert judged(log, wrote(9, 11, 1, 0), wrote(24, 27, 2, 1), flushed(15, 30, 3), flushed(31, 40, 4)).lost


def test_a_failed_flush_promises_nothing():
    events = [Event(Phase.INVOKED, Kind.FLUSH, 2, at_ns=20), Event(Phase.FAILED, Kind.FLUSH, 2, at_ns=30)]
    assert not judged([write(10, 1, 0)], wrote(9, 11, 1, 0), events).lost


def test_an_acknowledged_write_that_no_backend_made_is_a_loss():
    assert judged([mark(20)], wrote(9, 11, 1, 0), flushed(15, 30, 3)).lost


def test_a_write_made_again_after_a_death_may_be_overwritten_by_what_came_after_it():
    log = [write(10, 1, 0), write(12, 2, 0), write(20, 1, 0), write(22, 2, 0), mark(30)]
    assert not judged(log, wrote(9, 21, 1, 0), wrote(9, 23, 2, 0), flushed(25, 35, 3)).lost


def test_an_older_content_in_a_newer_ones_place_is_a_loss():
    """The backend wrote what was promised, and then what it had written before that."""
    log = [write(10, 1, 0), write(30, 2, 0), mark(40), write(60, 1, 0), mark(70)]
    history = (wrote(9, 20, 1, 0), wrote(21, 35, 2, 0), flushed(45, 50, 3))
    assert not judged(log[:3], *history).lost
    assert not judged(log, *history).lost  # it was written later, if for nobody: what the checker of the image finds
    assert judged([log[1], mark(40), log[0]], wrote(9, 35, 1, 0), flushed(36, 50, 3)).lost


def test_a_discard_that_was_flushed_counts_as_zeros():
    discard = LogRecord(LogKind.DISCARD, 0, BLOCK_SIZE, 12)
    assert not judged([write(10, 1, 0), discard, mark(20), mark(21, LogKind.FLUSHED)]).lost


@pytest.mark.parametrize(("writes", "images"), [(0, 1), (1, 2 + 4), (3, 8 + 4), (5, 2 + 4 + 4)])
def test_small_windows_are_cut_in_every_way_and_large_ones_by_chance(writes, images):
    log = [write(number, number + 1, number) for number in range(writes)]
    every = [judged(log[:length], exhaustive_max=4, samples=4).images for length in range(writes + 1)]
    assert every[-1] - (every[-2] if writes else 0) == images


def test_a_promise_of_what_was_written_only_later_is_a_loss():
    assert judged([write(30, 1, 0), mark(20, LogKind.FLUSHED)]).lost


@pytest.mark.parametrize("lie", [
    LogRecord(LogKind.DISCARD, 0, 2**64 - 512, 20), LogRecord(LogKind.DISCARD, len(BASE), 512, 20),
    LogRecord(LogKind.WRITE, len(BASE) - 512, 1024, 20, bytes(1024)), LogRecord(LogKind.WRITE, 1, 512, 20, bytes(512)),
    LogRecord(LogKind.WRITE, 0, 511, 20, bytes(511)),
])  # fmt: skip
def test_a_log_that_lies_about_its_image_is_not_judged_and_says_where(lie):
    with pytest.raises(LocalError, match=r"record 1 of the log of writes is about \d+ bytes at \d+ of an image of"):
        judged([write(10, 1, 0), lie, mark(30)])


def test_every_prefix_is_cut_unless_fewer_are_asked_for():
    log = [write(number, number + 1, number % 8) for number in range(40)]
    assert judged(log, exhaustive_max=2, samples=1).prefixes == 41
    assert judged(log, exhaustive_max=2, samples=1, prefixes_max=10).prefixes in (10, 11)


def test_torn_writes_are_among_the_images():
    """Sectors, not blocks, are what a disk writes whole: a promised block may be half old and half new, never blank."""
    log = [write(10, 1, 0), mark(20), mark(21, LogKind.FLUSHED), write(30, 2, 0)]
    assert not judged(log, samples=64).lost
    blank = LogRecord(LogKind.WRITE, 0, BLOCK_SIZE, 30, bytes(BLOCK_SIZE))
    assert not judged([*log[:3], blank], samples=64).lost  # it was written, if by nobody we know
