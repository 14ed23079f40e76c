"""What a kill has cost, from the moments at which answers were given."""

import pytest

from hvd.toolstack.bench.kill_rates import KILLS, WHOLE_S, WINDOW_NS, Kill, _counts
from hvd.toolstack.bench.recovery import Death
from hvd.transport.end_moments import EndMoments

SECOND_NS = 10**9
AT = 5 * SECOND_NS


def a_kill():
    return Kill(AT - WINDOW_NS, Death(AT, AT, AT, AT, AT, EndMoments(AT, AT, AT)), AT)


def answers(silence_ns):
    """One a millisecond, but for a silence from the kill on."""
    return [at for at in range(0, 2 * AT, 10**6) if not AT <= at < AT + silence_ns]


COSTS = [(0, 1, 0.0), (20, 1, 2.0), (20, 2, 1.0), (20, 10, 0.2)]


@pytest.mark.parametrize(("silence_ms", "period_s", "percent"), COSTS)
def test_a_silence_costs_its_share_of_the_time_between_two_kills(silence_ms, period_s, percent):
    assert a_kill().lost(answers(silence_ms * 10**6), period_s) == pytest.approx(percent)


def test_a_whole_run_kills_at_every_rate_and_a_short_one_at_the_highest():
    assert _counts(WHOLE_S) == _counts(2 * WHOLE_S) == KILLS
    assert _counts(1.0) == {min(KILLS): 2}
