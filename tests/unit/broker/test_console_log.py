"""What domains' processes write to their standard descriptors ends in their logs."""

import os

import pytest

from hvd.broker.console_log import ConsoleLog
from hvd.broker.poller import Poller
from hvd.transport.ids import DomId

DOM = DomId(5)


@pytest.fixture
def poller():
    return Poller()


@pytest.fixture
def heard():
    return []


@pytest.fixture
def logs(tmp_path, poller, heard):
    return ConsoleLog(str(tmp_path), poller, heard.append)


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


def test_what_a_domain_writes_is_appended_to_the_log_of_its_name_and_is_work_for_it(
    tmp_path, logs, poller, pipe, heard
):
    logs.attach(DOM, "ivi", pipe[0])
    for text in (b"one\n", b"two\n"):
        os.write(pipe[1], text)
        poller.poll(0)
    assert (tmp_path / "log" / "ivi.log").read_bytes() == b"one\ntwo\n"
    assert heard == [DOM, DOM]


def test_what_was_written_last_is_taken_in_when_the_domain_is_gone(tmp_path, logs, poller, pipe):
    logs.attach(DOM, "ivi", pipe[0])
    os.write(pipe[1], b"Segmentation fault\n")
    logs.forget(DOM)
    assert (tmp_path / "log" / "ivi.log").read_bytes() == b"Segmentation fault\n"
    os.write(pipe[1], b"more")
    poller.poll(0)
    assert (tmp_path / "log" / "ivi.log").read_bytes() == b"Segmentation fault\n"


def test_a_whole_pipe_is_taken_in_at_the_end(tmp_path, logs, pipe):
    os.set_blocking(pipe[1], False)
    written = os.write(pipe[1], b"x" * 1_000_000)
    logs.attach(DOM, "ivi", pipe[0])
    logs.forget(DOM)
    assert (tmp_path / "log" / "ivi.log").stat().st_size == written


def test_the_next_incarnation_writes_on(tmp_path, logs, poller, pipe):
    os.write(pipe[1], b"first\n")
    logs.attach(DOM, "ivi", pipe[0])
    logs.forget(DOM)
    logs.attach(DOM, "ivi", pipe[0])
    os.write(pipe[1], b"second\n")
    poller.poll(0)
    assert (tmp_path / "log" / "ivi.log").read_bytes() == b"first\nsecond\n"


def test_forgetting_what_was_never_attached_is_nothing(tmp_path, logs):
    logs.forget(DOM)
    logs.read(DOM)
    assert list((tmp_path / "log").iterdir()) == []
