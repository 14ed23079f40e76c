"""The checker of a console, on logs written by hand, rotations too."""

import pytest

from hvd.toolstack.faults import console_checker
from hvd.toolstack.faults.console_checker import ConsoleChecker, LogFollower
from hvd.transport import log_file
from hvd.transport.history import INCARNATION_SHIFT, Kind, Phase
from hvd.transport.limits import CONSOLE_LOG_BYTES_MAX
from hvd.transport.stamped_lines import pieces, stamped_line, whole_lines

SEED = 4


@pytest.fixture
def log(tmp_path):
    return tmp_path / "talker.log"


def printed(written, *numbers):
    for number in numbers:
        written.done(Kind.LINE, number)


def judged(log, written, *lines):
    checker = ConsoleChecker(log, str(written.path), SEED)
    log.write_text("".join(line if isinstance(line, str) else stamped_line(SEED, line) for line in lines))
    return checker.check()


def test_lines_that_are_there_once_and_in_order_are_intact(log, written):
    printed(written, 1, 2, 3)
    verdict = judged(log, written, "it boots\n", 1, 2, "Traceback\n", 3)
    assert verdict.intact
    assert verdict.compared == 3


def test_a_line_that_was_taken_and_is_not_there_is_lost(log, written):
    printed(written, 1, 2, 3)
    assert judged(log, written, 1, 3).lost == 1


def test_a_line_that_is_there_twice_is_a_duplicate(log, written):
    printed(written, 1, 2)
    assert judged(log, written, 1, 2, 1).duplicated == 1


def test_a_line_behind_a_later_one_is_misplaced(log, written):
    printed(written, 1, 2)
    verdict = judged(log, written, 2, 1)
    assert (verdict.misplaced, verdict.lost, verdict.duplicated) == (1, 0, 0)


def test_a_line_that_nobody_printed_or_that_is_anothers_is_unexpected(log, written):
    printed(written, 1)
    assert judged(log, written, 1, 2, stamped_line(SEED + 1, 1)).unexpected == 2


def test_a_line_of_unknown_fate_may_be_there_in_part(log, written):
    written.record(Phase.INVOKED, Kind.LINE, 1 << INCARNATION_SHIFT)
    printed(written, 2 << INCARNATION_SHIFT)
    assert judged(log, written, stamped_line(SEED, 1 << INCARNATION_SHIFT)[:20], 2 << INCARNATION_SHIFT).intact


def test_a_torn_line_whose_domain_lives_is_found(log, written):
    printed(written, 1, 2)
    assert judged(log, written, 1, stamped_line(SEED, 9)[:20] + "\n", 2).torn == 1


def test_a_log_that_is_rotated_is_read_to_its_end_and_on(log):
    follower, read = LogFollower(log), ""
    line = "x" * 1000 + "\n"
    for number in range(3 * CONSOLE_LOG_BYTES_MAX // 1000):
        log_file.append(log, f"{number} {line}".encode())
        if number % 100 == 0:
            read += follower.read()
    read += follower.read()
    assert [int(each.split()[0]) for each in read.splitlines()] == list(range(3 * CONSOLE_LOG_BYTES_MAX // 1000))


def test_a_log_whose_inode_is_that_of_one_read_before_is_another(log):
    """Two rotations between two looks: what is in neither file is gone, what is in one of them is read."""
    follower = LogFollower(log)
    log.write_bytes(b"1\n" * 100)
    assert follower.read() == "1\n" * 100
    log.with_suffix(".log.1").write_bytes(b"2\n" * 100)
    log.write_bytes(b"3\n" * 200)
    assert follower.read() == "2\n" * 100 + "3\n" * 200


def test_a_log_whose_writer_died_half_way_through_a_rotation_is_read_once(log):
    follower = LogFollower(log)
    log.write_bytes(b"1\n" * 100)
    assert follower.read() == "1\n" * 100
    log.with_suffix(".log.1").hardlink_to(log)
    assert follower.read() == ""
    log_file.append(log, b"2\n")
    assert follower.read() == "2\n"


def test_a_log_that_is_rotated_between_the_looks_at_its_two_files_is_read_whole(log, monkeypatch):
    follower, real, rotations = LogFollower(log), console_checker._content, [b"2\n", b"3\n"]
    log.write_bytes(b"1\n" * 100)
    follower.read()

    def rotated_meanwhile(path):
        content = real(path)
        if path == log and rotations:
            log_file._rotate(log, rotations.pop(0))
        return content

    log_file.append(log, b"tail\n")
    monkeypatch.setattr(console_checker, "_content", rotated_meanwhile)
    assert follower.read().endswith("2\n3\n")


def test_a_whole_line_says_so_itself():
    line = stamped_line(SEED, 17)
    assert list(whole_lines(f"{line[:9]}{line}{line[:-1]}")) == [(SEED, 17)]
    assert list(whole_lines(line.replace(" 17 ", " 18 "))) == []
    assert pieces(f"{line[:9]}{line}{line[:-1]}") == 2
