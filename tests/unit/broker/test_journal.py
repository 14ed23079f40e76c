"""The journal: a record is there as a whole or not at all, and damage is noticed."""

import os
import resource
import struct
from pathlib import Path

import pytest

from hvd.broker.journal import RECORD, RECORDS_AT, Intent, Journal, JournalCorrupt, JournalFull, JournalWriter, Stretch


@pytest.fixture
def journal():
    made = Journal.create(b"snapshot", capacity=200)
    yield made
    made.close()
    os.close(made.descriptor)


def reopened(journal):
    """What a new broker finds."""
    again = Journal(journal.descriptor)
    try:
        return list(again.records())
    finally:
        again.close()


def test_a_new_journal_holds_its_snapshot(journal):
    assert reopened(journal) == [b"snapshot"]


def test_records_come_back_in_order(journal):
    journal.append(b"one")
    journal.append(b"")
    journal.append(b"three" * 10)
    assert reopened(journal) == list(journal.records()) == [b"snapshot", b"one", b"", b"three" * 10]


def test_a_new_broker_writes_on_where_the_old_one_ended(journal):
    journal.append(b"one")
    successor = Journal(journal.descriptor)
    successor.append(b"two")
    successor.close()
    assert reopened(journal) == [b"snapshot", b"one", b"two"]


def test_there_is_room_for_the_capacity_beside_the_snapshot_and_not_for_a_byte_more(journal):
    journal.append(b"x" * (200 - RECORD.size))
    with pytest.raises(JournalFull):
        journal.append(b"")
    assert len(reopened(journal)) == 2


def test_what_does_not_fit_leaves_everything_as_it_was(journal):
    journal.append(b"one")
    with pytest.raises(JournalFull):
        journal.append(b"x" * 200)
    assert reopened(journal) == [b"snapshot", b"one"]
    journal.append(b"two")
    assert reopened(journal) == [b"snapshot", b"one", b"two"]


def test_a_snapshot_larger_than_the_capacity_still_has_its_room():
    journal = Journal.create(b"s" * 100_000, capacity=100)
    journal.append(b"x" * (100 - RECORD.size))
    assert [len(record) for record in journal.records()] == [100_000, 100 - RECORD.size]
    journal.close()
    os.close(journal.descriptor)


def test_a_journal_that_is_full_is_given_room_and_a_successor_finds_all_of_it(journal):
    journal.append(b"x" * (200 - RECORD.size))
    journal.make_room(100)
    journal.append(b"y" * (100 - RECORD.size))
    with pytest.raises(JournalFull):
        journal.append(b"")
    assert [record[:1] for record in reopened(journal)] == [b"s", b"x", b"y"]
    journal.open_intent("d:1.1", 7)
    assert Journal(journal.descriptor).intent() == Intent("d:1.1", 7)


def test_a_journal_that_is_made_a_little_at_a_time_has_what_was_put_and_what_was_copied(journal):
    journal.append(b"one")
    start = RECORDS_AT + RECORD.size + len(b"snapshot")
    journal.append(b"two")
    end = start + 2 * RECORD.size + len(b"onetwo")
    writer = JournalWriter()
    writer.put([b"first", b""])
    for at in range(start, end, 5):
        writer.copy(journal, Stretch(at, min(at + 5, end)))
    writer.put([b"last"])
    made = writer.finished(capacity=RECORD.size)
    writer.close()
    assert reopened(made) == [b"first", b"", b"one", b"two", b"last"]
    made.append(b"")
    with pytest.raises(JournalFull):
        made.append(b"")
    made.close()
    os.close(made.descriptor)


def test_a_journal_that_is_given_up_half_made_leaves_no_descriptor():
    before = len(list(Path("/proc/self/fd").iterdir()))
    writer = JournalWriter()
    writer.put([b"first"])
    writer.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_host_that_takes_some_of_what_is_written_is_asked_to_take_the_rest_and_refuses(journal):
    """As one does that runs out of memory in the middle; here it is the process's limit on files."""
    writer = JournalWriter()
    writer.put([b"first"])
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.end + 3000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            writer.put([b"x" * 5000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.close()


def test_a_writer_that_dies_at_any_byte_of_a_record_leaves_all_or_nothing_of_it(journal):
    """An append writes the record byte by byte in this test, and its end last."""
    journal.append(b"first")
    before = os.pread(journal.descriptor, 2 * RECORDS_AT, 0)
    journal.append(b"the last record")
    after = os.pread(journal.descriptor, 2 * RECORDS_AT, 0)
    changed = [at for at in range(RECORDS_AT, len(after)) if before[at] != after[at]]
    os.pwrite(journal.descriptor, before, 0)
    for at in changed:
        os.pwrite(journal.descriptor, after[at : at + 1], at)
        assert reopened(journal) == [b"snapshot", b"first"], at
    os.pwrite(journal.descriptor, after[8:16], 8)
    assert reopened(journal) == [b"snapshot", b"first", b"the last record"]


def test_only_the_end_in_the_header_tells_a_record_from_none(journal):
    before = os.pread(journal.descriptor, RECORDS_AT, 0)
    journal.append(b"one")
    after = os.pread(journal.descriptor, RECORDS_AT, 0)
    assert {at // 8 for at in range(RECORDS_AT) if before[at] != after[at]} == {1}


def test_a_new_record_covers_what_a_dead_writer_left_behind_the_end(journal):
    end = RECORDS_AT + RECORD.size + len(b"snapshot")
    os.pwrite(journal.descriptor, b"\xff" * 64, end)
    assert reopened(journal) == [b"snapshot"]
    journal.append(b"one")
    assert reopened(journal) == [b"snapshot", b"one"]


def test_every_flipped_bit_of_what_counts_is_noticed(journal):
    journal.append(b"one")
    journal.append(b"two")
    end = struct.unpack("<Q", os.pread(journal.descriptor, 8, 8))[0]
    for at in [*range(16), *range(RECORDS_AT, end)]:
        (whole,) = os.pread(journal.descriptor, 1, at)
        for bit in range(8):
            os.pwrite(journal.descriptor, bytes([whole ^ 1 << bit]), at)
            with pytest.raises(JournalCorrupt):
                reopened(journal)
        os.pwrite(journal.descriptor, bytes([whole]), at)
    assert reopened(journal) == [b"snapshot", b"one", b"two"]


@pytest.mark.parametrize("end", [0, RECORDS_AT, RECORDS_AT + 1, RECORDS_AT + RECORD.size + 7, 2**63])
def test_an_end_that_cannot_be_is_noticed(journal, end):
    os.pwrite(journal.descriptor, struct.pack("<Q", end), 8)
    with pytest.raises(JournalCorrupt):
        reopened(journal)


def test_another_files_descriptor_is_no_journal():
    descriptor = os.memfd_create("no-journal")
    os.ftruncate(descriptor, 8192)
    with pytest.raises(JournalCorrupt, match="not a journal of version"):
        Journal(descriptor)
    os.close(descriptor)


# ---- the intent ------------------------------------------------------------------------------------------------------


def test_no_hypercall_is_open_at_first_and_after_one_was_closed(journal):
    assert journal.intent() is None
    journal.open_intent("d:1.1", 7)
    journal.close_intent()
    assert journal.intent() is None


def test_an_open_hypercall_is_found_by_the_next_broker(journal):
    journal.open_intent("t:" + "a" * 60, 2**62)
    successor = Journal(journal.descriptor)
    assert successor.intent() == Intent("t:" + "a" * 60, 2**62)
    successor.close()


def test_an_intent_does_not_keep_the_rest_of_a_longer_session(journal):
    journal.open_intent("t:" + "a" * 60, 1)
    journal.close_intent()
    journal.open_intent("d:1.1", 2)
    assert journal.intent() == Intent("d:1.1", 2)


def test_an_intent_is_no_record(journal):
    journal.open_intent("d:1.1", 7)
    assert reopened(journal) == [b"snapshot"]
