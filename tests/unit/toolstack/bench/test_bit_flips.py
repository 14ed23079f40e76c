"""How it is told how many flips were found."""

import pytest

from hvd.toolstack.bench.bit_flips import _found


@pytest.mark.parametrize(("found", "percent", "note"), [
    ([True] * 30, 100.0, "30 of 30; at most 10.00% are not (95 %); seed 7"),
    ([True, True], 100.0, "2 of 2; at most 100.00% are not (95 %); seed 7"),
    ([True, False, True, True], 75.0, "3 of 4; seed 7"),
])  # fmt: skip
def test_all_are_to_be_found_and_a_bound_is_told_where_they_were(found, percent, note):
    figure = _found("flips", found, 7)
    assert (figure.p50, figure.note, figure.met) == (percent, note, percent == 100.0)
