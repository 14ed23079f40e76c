"""The poller: who is woken by which descriptor, also when handlers change what is watched."""

import os
from functools import partial

import pytest

from hvd.broker.poller import Poller


@pytest.fixture
def pipe():
    made = os.pipe2(os.O_NONBLOCK)
    yield made
    for descriptor in made:
        os.close(descriptor)


@pytest.fixture
def second():
    made = os.pipe2(os.O_NONBLOCK)
    yield made
    for descriptor in made:
        os.close(descriptor)


def test_a_reader_is_called_as_long_as_there_is_something_to_read(pipe):
    poller, calls = Poller(), []
    poller.watch(pipe[0], lambda: calls.append("read"))
    poller.poll(0)
    os.write(pipe[1], b"x")
    poller.poll(0)
    poller.poll(0)
    assert calls == ["read", "read"]
    os.read(pipe[0], 1)
    poller.poll(0)
    assert len(calls) == 2


def test_a_writer_is_called_while_it_is_asked_for(pipe):
    poller, calls = Poller(), []
    poller.watch_writable(pipe[1], lambda: calls.append("write"))
    poller.poll(0)
    poller.watch_writable(pipe[1], None)
    poller.watch_writable(pipe[1], None)
    poller.poll(0)
    assert calls == ["write"]


def test_one_descriptor_may_be_read_and_written(second):
    poller, calls = Poller(), []
    poller.watch(second[0], lambda: calls.append("read"))
    poller.watch_writable(second[0], lambda: calls.append("write"))
    os.write(second[1], b"x")
    poller.poll(0)
    assert calls == ["read"]  # a pipe's read end is never writable


def test_what_is_not_watched_any_more_wakes_nobody(pipe):
    poller, calls = Poller(), []
    poller.watch(pipe[0], lambda: calls.append("read"))
    os.write(pipe[1], b"x")
    poller.unwatch(pipe[0])
    poller.unwatch(pipe[0])
    poller.poll(0)
    assert calls == []


def test_a_handler_may_end_the_watching_of_another_that_is_ready_too(pipe, second):
    poller, calls = Poller(), []

    def end(mine, other):
        calls.append(mine[0])
        poller.unwatch(other[0])

    for mine, other in ((pipe, second), (second, pipe)):
        poller.watch(mine[0], partial(end, mine, other))
        os.write(mine[1], b"x")
    poller.poll(0)
    assert len(calls) == 1


def test_the_other_ends_going_wakes_the_reader():
    read, write = os.pipe()
    poller, calls = Poller(), []
    poller.watch(read, lambda: calls.append("read"))
    os.close(write)
    poller.poll(0)
    poller.unwatch(read)
    os.close(read)
    assert calls == ["read"]


def test_a_number_that_was_given_away_again_is_watched_anew(pipe):
    poller, calls = Poller(), []
    poller.watch(pipe[0], lambda: calls.append("old"))
    poller.unwatch(pipe[0])
    poller.watch(pipe[0], lambda: calls.append("new"))
    os.write(pipe[1], b"x")
    poller.poll(0)
    assert calls == ["new"]
