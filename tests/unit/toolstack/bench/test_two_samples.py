"""The Mann-Whitney U test, against exact values and against what it is for."""

import random

import pytest

from hvd.toolstack.bench.two_samples import p_value


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        # U = 2 of 100, mean 50, variance 175: z = 47.5 / 13.229
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 12], [10, 11, 13, 14, 15, 16, 17, 18, 19, 20], 0.000_329_8),
        # ties of 3, 2 and 2: U = 0.5 of 16, mean 8, variance 4 / 3 * (9 - 36 / 56): z = 7 / 3.338
        ([1, 1, 1, 2], [2, 3, 3, 4], 0.036_0),
        ([5, 5, 5], [5, 5], 1.0),
        ([], [1, 2], 1.0),
    ],
)
def test_values_computed_by_hand(one, other, p):
    assert p_value(one, other) == pytest.approx(p, rel=0.02)
    assert p_value(other, one) == pytest.approx(p_value(one, other))


def test_of_samples_of_one_population_about_one_in_twenty_has_p_below_a_twentieth():
    dice = random.Random(1)
    low = sum(
        p_value([dice.expovariate(1) for _ in range(30)], [dice.expovariate(1) for _ in range(40)]) < 0.05
        for _ in range(1000)
    )
    assert 30 <= low <= 72


def test_a_shift_is_found():
    dice = random.Random(2)
    one, other = [dice.gauss(0, 1) for _ in range(100)], [dice.gauss(1, 1) for _ in range(100)]
    assert p_value(one, other) < 1e-6
