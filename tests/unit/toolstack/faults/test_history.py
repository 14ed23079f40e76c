"""What a history says of each operation, and what no history may say."""

import pytest

from hvd.toolstack.faults import history as history_module
from hvd.toolstack.faults.history import History, HistoryChecker, Verdict
from hvd.transport.history import INCARNATION_SHIFT, RECORD_SIZE, Kind, Phase


def followed(written):
    verdict = Verdict()
    history = History(str(written.path), verdict)
    history.follow()
    return history, verdict


def test_an_operation_without_an_answer_is_unknown_and_not_ok(written):
    written.done(Kind.CALL, 1)
    written.record(Phase.INVOKED, Kind.CALL, 2)
    _, verdict = followed(written)
    assert (verdict.invoked, verdict.operations, verdict.ok, verdict.unknown, verdict.orphaned) == (2, 1, 1, 1, 0)
    assert verdict.intact


def test_it_is_orphaned_once_a_later_incarnation_has_begun(written):
    written.record(Phase.INVOKED, Kind.CALL, 1 << INCARNATION_SHIFT)
    written.record(Phase.INVOKED, Kind.CALL, 2 << INCARNATION_SHIFT)
    _, verdict = followed(written)
    assert (verdict.unknown, verdict.orphaned) == (2, 1)


def test_a_failed_operation_is_neither_ok_nor_unknown(written):
    written.record(Phase.INVOKED, Kind.CALL, 1)
    written.record(Phase.FAILED, Kind.CALL, 1)
    _, verdict = followed(written)
    assert (verdict.ok, verdict.failed, verdict.unknown) == (0, 1, 0)


def test_an_answer_that_comes_twice_is_a_duplicate(written):
    written.done(Kind.CALL, 1)
    written.record(Phase.OK, Kind.CALL, 1)
    _, verdict = followed(written)
    assert verdict.duplicated == 1
    assert not verdict.intact


def test_an_answer_to_what_nobody_asked_and_an_id_that_is_used_again_are_unexpected(written):
    written.record(Phase.OK, Kind.CALL, 1)
    written.done(Kind.CALL, 2)
    written.record(Phase.INVOKED, Kind.CALL, 2)
    _, verdict = followed(written)
    assert verdict.unexpected == 2
    assert not verdict.intact


def test_a_wrong_answer_is_no_ok(written):
    written.record(Phase.INVOKED, Kind.READ, 1)
    written.record(Phase.WRONG, Kind.READ, 1)
    _, verdict = followed(written)
    assert (verdict.ok, verdict.wrong) == (0, 1)
    assert not verdict.intact


def test_it_goes_on_where_it_stopped_and_leaves_a_torn_record_for_later(written):
    checker = HistoryChecker(str(written.path))
    assert checker.check().invoked == 0
    written.record(Phase.INVOKED, Kind.CALL, 1)
    whole = written.path.read_bytes()
    written.record(Phase.OK, Kind.CALL, 1)
    both = written.path.read_bytes()
    written.path.write_bytes(both[:-1])
    assert (checker.check().invoked, checker.verdict.ok) == (1, 0)
    written.path.write_bytes(both)
    assert checker.check().ok == 1
    assert len(whole) < len(both)


@pytest.mark.parametrize("at", [0, 1])
def test_a_record_of_no_known_phase_or_kind_is_unexpected_and_the_next_is_read(written, at):
    written.done(Kind.CALL, 1)
    data = bytearray(written.path.read_bytes())
    data[RECORD_SIZE + at] = 99
    written.path.write_bytes(data)
    written.done(Kind.CALL, 2)
    _, verdict = followed(written)
    assert (verdict.unexpected, verdict.invoked, verdict.ok, verdict.wrong, verdict.unknown) == (1, 2, 1, 0, 1)
    assert not verdict.intact


def test_a_history_of_many_parts_is_read_to_the_end_it_had_when_it_was_asked_for(written, monkeypatch):
    monkeypatch.setattr(history_module, "PART_RECORDS", 3)
    for id_ in range(4):
        written.done(Kind.CALL, id_)
    history = History(str(written.path), Verdict())
    found = []
    for part in history.parts():
        found.append(len(part))
        written.record(Phase.INVOKED, Kind.CALL, 100 + len(found))  # faster than we read
    assert found == [3, 3, 2]
    assert [event.id for event in history.follow()] == [101, 102, 103]


@pytest.mark.timeout(20)
def test_a_history_that_has_become_shorter_has_nothing_new(written):
    written.done(Kind.CALL, 1)
    history, verdict = followed(written)
    written.path.write_bytes(b"")
    assert history.follow() == []
    assert (verdict.invoked, verdict.unexpected) == (1, 0)


def test_the_times_of_all_answers_are_kept_and_the_latencies_of_those_that_are_ok(written):
    written.done(Kind.CALL, 1)
    written.record(Phase.INVOKED, Kind.CALL, 2)
    written.record(Phase.FAILED, Kind.CALL, 2)
    history, _ = followed(written)
    assert list(history.latencies) == [(1, 2)]
    assert list(history.times_ns) == [2, 4]
