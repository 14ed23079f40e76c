"""A log that cannot fill the disk."""

import os

import pytest

from hvd.transport.limits import CONSOLE_LOG_BYTES_MAX
from hvd.transport.log_file import append


@pytest.fixture
def log(tmp_path):
    return tmp_path / "ivi.log"


def test_what_is_appended_is_there(log):
    append(log, b"one\n")
    append(log, b"two\n")
    assert log.read_bytes() == b"one\ntwo\n"


def test_a_full_log_becomes_the_old_one(log):
    append(log, b"a" * CONSOLE_LOG_BYTES_MAX)
    append(log, b"b")
    assert log.read_bytes() == b"b"
    assert (log.parent / "ivi.log.1").read_bytes() == b"a" * CONSOLE_LOG_BYTES_MAX


def test_a_log_may_be_filled_to_the_last_byte(log):
    append(log, b"a" * (CONSOLE_LOG_BYTES_MAX - 1))
    append(log, b"b")
    assert log.stat().st_size == CONSOLE_LOG_BYTES_MAX
    assert [path.name for path in log.parent.iterdir()] == ["ivi.log"]


def test_there_are_two_files_of_at_most_the_bound_however_much_is_written(log):
    for n in range(100):
        append(log, bytes([n]) * 100_000)
    sizes = [path.stat().st_size for path in log.parent.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= CONSOLE_LOG_BYTES_MAX
    assert log.read_bytes()[-1] == 99


def test_both_files_are_there_at_every_step_of_a_rotation(log, monkeypatch):
    """Whoever reads one that is there a moment before is not told that it is not."""
    old, steps = log.parent / "ivi.log.1", []

    def seen(real):
        def step(*arguments):
            real(*arguments)
            steps.append((log.exists(), old.exists()))

        return step

    for byte in (b"a", b"b"):
        append(log, byte * CONSOLE_LOG_BYTES_MAX)
    for name in ("link", "unlink", "replace", "rename"):
        monkeypatch.setattr(os, name, seen(getattr(os, name)))
    append(log, b"c")
    assert steps and set(steps) == {(True, True)}
    assert (log.read_bytes(), old.read_bytes()[:1]) == (b"c", b"b")


@pytest.mark.parametrize("left", ["ivi.log.new", "ivi.log.ended"])
def test_what_a_writer_that_was_killed_in_a_rotation_left_stops_no_later_one(log, left):
    (log.parent / left).write_bytes(b"half")
    for byte in b"abc":
        append(log, bytes([byte]) * CONSOLE_LOG_BYTES_MAX)
    assert sorted(path.name for path in log.parent.iterdir() if path.name != left) == ["ivi.log", "ivi.log.1"]
    assert (log.parent / "ivi.log.1").read_bytes()[:1] == b"b"


@pytest.mark.parametrize("before", [b"", b"x"])
def test_of_more_than_a_whole_log_the_end_is_kept(log, before):
    if before:
        append(log, before)
    append(log, b"a" * 5 + b"b" * CONSOLE_LOG_BYTES_MAX)
    assert log.read_bytes() == b"b" * CONSOLE_LOG_BYTES_MAX


def test_a_log_that_was_rotated_or_removed_by_another_writer_is_written_on(log):
    append(log, b"one\n")
    log.rename(log.with_suffix(".log.1"))
    append(log, b"two\n")
    log.unlink()
    append(log, b"three\n")
    assert log.read_bytes() == b"three\n"


def test_a_log_that_cannot_be_written_loses_what_is_appended_and_harms_nobody(log):
    append(log.parent / "missing" / "ivi.log", b"one\n")
    log.mkdir()
    append(log, b"one\n")
    assert list(log.parent.iterdir()) == [log] and not list(log.iterdir())
