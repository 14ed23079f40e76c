"""Percentiles are values that were measured."""

import pytest

from hvd.toolstack.faults.killer import Recovery, percentiles


def test_percentiles_are_nearest_ranks():
    assert percentiles([float(n) for n in range(1, 101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


@pytest.mark.parametrize("values", [[3.0], [3.0, 1.0, 2.0]])
def test_few_values_have_percentiles_too(values):
    assert percentiles(values)["p99"] == percentiles(values)["max"] == 3.0


def test_no_values_have_none():
    assert percentiles([]) == {}


def test_a_victim_that_was_never_ready_again_has_not_recovered():
    assert not Recovery(1, "a", 1, detected_ms=2.0, outcome="failed: 5 restarts").recovered
    assert Recovery(1, "a", 1, detected_ms=2.0, ready_ms=9.0).as_dict()["recovered"] is True
