"""The audit log: every denial is in it, until one domain causes too many."""

from __future__ import annotations

import pytest

from hvd.broker.audit import LINES_PER_S, AuditLog
from hvd.transport.ids import DomId
from hvd.transport.limits import AVC_BURST_MAX, CONSOLE_LOG_BYTES_MAX
from hvd.transport.run_dir import AUDIT_LOG

ONE, OTHER = DomId(1), DomId(2)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    (tmp_path / "log").mkdir()
    return AuditLog(str(tmp_path), clock)


def lines(log):
    """What is taken, as text."""
    return [denial.line for denial in log.take()]


def file_of(tmp_path):
    return (tmp_path / AUDIT_LOG).read_text()


def test_a_line_that_was_taken_is_in_the_file_behind_its_time(log, tmp_path):
    log.note(ONE, "avc:  denied")
    assert not (tmp_path / AUDIT_LOG).exists()
    assert lines(log) == ["avc:  denied"]
    assert lines(log) == []
    time, _, text = file_of(tmp_path).partition(" ")
    assert time.endswith("+00:00")
    assert text == "avc:  denied\n"


def test_avc_burst_max_lines_of_one_domain_are_logged_and_the_others_counted(log, clock):
    for number in range(AVC_BURST_MAX + 500):
        log.note(ONE, str(number))
    assert lines(log) == [str(number) for number in range(AVC_BURST_MAX)]
    clock.now += 1 / LINES_PER_S
    log.note(ONE, "later")
    assert lines(log) == ["avc:  500 more of domid=1 were not logged", "later"]
    log.note(ONE, "at once")
    assert lines(log) == []


def test_a_domain_that_is_denied_without_end_hides_no_others_denials(log):
    for _ in range(10 * AVC_BURST_MAX):
        log.note(ONE, "noise")
    log.take()
    log.note(OTHER, "signal")
    assert lines(log) == ["signal"]


def test_every_denial_is_counted_whether_it_was_logged_or_not(log, clock):
    for _ in range(AVC_BURST_MAX + 500):
        log.note(ONE, "noise")
    log.note(OTHER, "signal")
    clock.now += 1 / LINES_PER_S
    log.note(ONE, "later")
    counted = {ONE: 0, OTHER: 0}
    for denial in log.take():
        counted[denial.source] += denial.denials
    assert counted == {ONE: AVC_BURST_MAX + 501, OTHER: 1}


def test_what_a_dead_domain_was_not_logged_for_is_told(log):
    for _ in range(AVC_BURST_MAX + 3):
        log.note(ONE, "noise")
    log.take()
    log.forget(ONE)
    assert lines(log) == ["avc:  3 more of domid=1 were not logged"]
    log.forget(ONE)
    log.forget(OTHER)
    assert lines(log) == []


def test_silence_earns_no_more_than_a_burst(log, clock):
    log.note(ONE, "first")
    clock.now += 1e6
    for number in range(2 * AVC_BURST_MAX):
        log.note(ONE, str(number))
    assert len(lines(log)) == 1 + AVC_BURST_MAX


def test_the_file_is_bounded(log, clock, tmp_path):
    for _ in range(4):
        clock.now += 1e6
        for _ in range(AVC_BURST_MAX):
            log.note(ONE, "x" * (CONSOLE_LOG_BYTES_MAX // AVC_BURST_MAX // 2))
        log.take()
    sizes = [path.stat().st_size for path in (tmp_path / "log").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= CONSOLE_LOG_BYTES_MAX
