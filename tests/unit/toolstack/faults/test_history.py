"""What a history says of each operation, and what no history may say."""

from hvd.toolstack.faults.history import History, HistoryChecker, Verdict
from hvd.transport.history import INCARNATION_SHIFT, Kind, Phase


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


def test_latencies_and_times_of_answers_are_kept(written):
    written.done(Kind.CALL, 1)
    history, _ = followed(written)
    assert (history.latencies, history.times_ns) == ([(1, 2)], [2])
