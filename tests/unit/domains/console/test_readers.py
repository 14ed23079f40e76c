"""Whether somebody has read a terminal since it was asked last; where the kernel tells nothing, somebody may have."""

import os

import pytest

from hvd.domains.console import readers as module
from hvd.domains.console.readers import UNKNOWN, Readers


@pytest.fixture
def readers():
    made = Readers()
    yield made
    made.close()


def reads(*answers):
    """Of a descriptor that has so much, and then nothing."""
    left = list(answers)

    def read(*_):
        if not left:
            raise BlockingIOError
        return left.pop(0)

    return read


@pytest.fixture
def terminal():
    master, slave = os.openpty()
    yield master, slave, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_who_has_opened_or_read_it_was_there_and_who_has_written_was_not(readers, terminal):
    master, slave, path = terminal
    number = readers.follow(path)
    assert not readers.were_there(number)
    reader = os.open(path, os.O_RDWR | os.O_NOCTTY)
    assert [readers.were_there(number) for _ in range(2)] == [True, False]
    os.write(master, b"a line\n")
    os.write(slave, b"typed")
    assert not readers.were_there(number)
    assert os.read(reader, 100) == b"a line\n"
    assert [readers.were_there(number) for _ in range(2)] == [True, False]
    os.close(reader)


def test_each_terminal_has_its_own_readers_and_one_that_was_let_go_has_none(readers, tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text("text")
    first, second = (readers.follow(str(path)) for path in paths)
    paths[0].read_text()
    assert (readers.were_there(second), readers.were_there(first)) == (False, True)
    paths[0].read_text()
    readers.forget(first)
    readers.forget(first)
    assert not readers.were_there(first)
    paths[1].read_text()
    assert readers.were_there(second)


def test_who_reads_is_seen_behind_thousands_of_others(readers, tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text("text")
    numbers = [readers.follow(str(path)) for path in paths]
    for _ in range(2500):  # alternately, or the kernel makes one event of them
        paths[0].read_text()
        paths[1].read_text()
    paths[2].read_text()
    assert readers.were_there(numbers[2])


def test_when_events_were_lost_somebody_may_have_been_anywhere(readers, terminal, monkeypatch):
    number = readers.follow(terminal[2])
    lost = module._EVENT.pack(-1, module.IN_Q_OVERFLOW, 0, 0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", reads(lost))
        assert readers.were_there(number)
    assert not readers.were_there(number)


def test_where_the_host_tells_nothing_somebody_always_may_be_there(readers, terminal, tmp_path, monkeypatch):
    def refuse():
        raise OSError(24, "no instance left")

    missing = readers.follow(str(tmp_path / "missing"))
    monkeypatch.setattr(module, "inotify_descriptor", refuse)
    none = Readers()
    for each, number in ((readers, missing), (none, none.follow(terminal[2]))):
        assert number == UNKNOWN
        assert [each.were_there(number) for _ in range(2)] == [True, True]
        each.forget(number)
    none.close()
