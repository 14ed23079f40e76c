"""A set of ids that is kept as runs."""

import random

import pytest

from hvd.toolstack.faults.id_runs import IdRuns

ORDERS = {
    "in order": range(40),
    "backwards": range(39, -1, -1),
    "with gaps": range(0, 80, 2),
    "gaps that are filled": [*range(0, 40, 2), *range(1, 40, 2)],
    **{f"by chance, seed {seed}": random.Random(seed).choices(range(40), k=60) for seed in range(4)},
}


@pytest.mark.parametrize("ids", ORDERS.values(), ids=ORDERS)
def test_it_holds_what_a_set_holds_and_takes_each_once(ids):
    runs, expected = IdRuns(), set()
    assert runs.last == -1
    for id_ in ids:
        assert runs.add(id_) == (id_ not in expected)
        expected.add(id_)
        assert {each for each in range(-1, 82) if each in runs} == expected
        assert runs.last == max(expected)
    for id_ in ids:
        assert not runs.add(id_)


def test_what_is_in_a_row_is_one_run_in_whatever_order_it_came():
    runs = IdRuns()
    for id_ in ORDERS["gaps that are filled"]:
        runs.add(id_)
    runs.add(100)
    assert (runs._starts, runs._ends) == ([0, 100], [40, 101])
