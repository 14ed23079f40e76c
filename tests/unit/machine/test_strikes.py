"""Signals sent to the machine's own processes: a stop is over in time, whoever asked for it."""

from __future__ import annotations

import os
import signal

import pytest

from hvd.machine.children import Child
from hvd.machine.strikes import Strikes


class Struck(Child):
    """A child that notes what it is sent."""

    def __init__(self, pid: int) -> None:
        super().__init__("broker", pid)
        self.signals: list[int] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture
def child():
    made = Struck(os.getpid())
    yield made
    os.close(made.pidfd)


def test_a_stop_is_followed_by_its_end_when_its_time_is_over(child):
    strikes = Strikes()
    strikes.strike(child, signal.SIGSTOP, 2.0, 100.0)
    assert strikes.deadline() == 102.0
    strikes.expire(101.9)
    assert child.signals == [signal.SIGSTOP]
    strikes.expire(102.0)
    assert child.signals == [signal.SIGSTOP, signal.SIGCONT]
    assert strikes.deadline() is None


def test_a_kill_is_followed_by_nothing(child):
    strikes = Strikes()
    strikes.strike(child, signal.SIGKILL, 2.0, 100.0)
    strikes.expire(1000.0)
    assert child.signals == [signal.SIGKILL]


def test_who_has_died_is_not_continued(child):
    strikes = Strikes()
    strikes.strike(child, signal.SIGSTOP, 2.0, 100.0)
    strikes.forget(child)
    strikes.expire(1000.0)
    assert child.signals == [signal.SIGSTOP]
