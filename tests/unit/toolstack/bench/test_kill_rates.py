"""What a kill has cost, from the moments at which answers were given."""

import pytest

from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.bench.kill_rates import KILLS, LEAST, WHOLE_S, WINDOW_NS, Kill, _counts, _doubt, _loss
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
    assert _counts(WHOLE_S, None) == _counts(2 * WHOLE_S, 300) == KILLS
    assert _counts(1.0, None) == _counts(1.0, 300) == {min(KILLS): LEAST}
    assert _counts(1.0, 3) == {min(KILLS): 3}
    assert _counts(1.0, 1) == {min(KILLS): 2}


VERDICTS = [(LEAST, 1.0, 0.5, 2.0, True), (LEAST, 3.0, 0.5, 2.0, False), (LEAST, 1.0, 2.0, 2.0, None),
            (LEAST, 13.5, 24.0, 3.6, None), (LEAST - 1, 1.0, 0.5, 2.0, None)]  # fmt: skip


@pytest.mark.parametrize(("kills", "lost", "within", "most", "met"), VERDICTS)
def test_a_goal_that_lies_in_the_interval_is_not_judged(kills, lost, within, most, met):
    doubt = _doubt(kills, lost, within, most)
    assert Figure("lost", "%", [lost], (Goal("p50", most),), doubt=doubt).met is met


def test_the_row_tells_how_many_kills_and_the_interval():
    figure = _loss(1, [a_kill(), a_kill()], answers(20 * 10**6))
    assert "mean of 2 kills, ± 0.00 (95 %)" in figure.remark
    assert "not judged: 2 kills are too few" in figure.remark
