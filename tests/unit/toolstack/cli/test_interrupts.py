"""Where a command hears of the signals that ask it to end, and of which it does not."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from hvd.toolstack.cli.interrupts import ENDING_SIGNALS, Ended, HeldSignals, ended_by_signals


@pytest.fixture
def hangups_ignored() -> Iterator[None]:
    """As a command is that was started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def test_what_a_command_was_started_to_ignore_ends_none_of_it(hangups_ignored):
    with HeldSignals() as signals, signals.heard():
        os.kill(os.getpid(), signal.SIGHUP)
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        signals.check()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_it_was_not_ends_it_where_it_is_heard_and_waits_elsewhere(hangups_ignored, number):
    before = signal.getsignal(number)
    with pytest.raises(Ended), ended_by_signals():
        os.kill(os.getpid(), number)
    with HeldSignals() as signals:
        os.kill(os.getpid(), number)
        with pytest.raises(Ended):
            signals.check()
        with pytest.raises(Ended), signals.heard():
            pass
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_comes_when_nobody_asks_any_more_is_heard_behind_that(number):
    with pytest.raises(Ended), ended_by_signals(), HeldSignals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
    with ended_by_signals(), HeldSignals() as signals:
        os.kill(os.getpid(), number)
        assert signals.came
        os.kill(os.getpid(), number)  # it ends already


def test_what_comes_behind_its_exit_comes_too_late():
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    try:
        with pytest.raises(SystemExit), HeldSignals():
            sys.exit(1)
        assert [signal.getsignal(number) for number in ENDING_SIGNALS] == [signal.SIG_IGN] * len(ENDING_SIGNALS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
