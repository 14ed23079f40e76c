"""Turns of contenders, and what the command line may say about CPUs."""

import os

import pytest

from hvd.toolstack.bench.run import ROUNDS, Run, cpus_from, in_turns, pinned
from hvd.toolstack.config import ConfigError
from hvd.transport.histogram import Histogram


def run(seed=1, duration_s=0.0, cpus=(0, 0)):
    return Run(seed, duration_s, cpus, lambda text: None)


def turns(seed):
    """Who had the turns, in order."""
    order: list[str] = []

    def contender(name):
        def turn(for_ns):
            order.append(name)
            times = Histogram()
            times.record(for_ns)
            return times

        return turn

    merged = in_turns(run(seed), "what", {name: contender(name) for name in "abc"}, 900_000_000)
    return order, merged


def test_every_contender_has_a_turn_in_every_round():
    order, merged = turns(seed=1)
    assert len(order) == 3 * ROUNDS
    for number in range(ROUNDS):
        assert sorted(order[3 * number : 3 * number + 3]) == ["a", "b", "c"]
    assert [times.count for times in merged.values()] == [ROUNDS] * 3
    assert merged["a"].max == 900_000_000 // (3 * ROUNDS)


def test_the_seed_decides_the_order_of_turns():
    assert turns(seed=7)[0] == turns(seed=7)[0]
    assert len({tuple(turns(seed)[0]) for seed in range(20)}) > 1


def test_a_share_of_nothing_is_still_a_turn():
    assert run().share_ns(0.5) > 0
    assert run(duration_s=10.0).share_ns(0.5) == 5_000_000_000


def test_without_a_list_the_ends_are_the_first_and_the_last_cpu():
    usable = sorted(os.sched_getaffinity(0))
    assert cpus_from(None) == (usable[0], usable[-1])
    assert cpus_from(f"{usable[-1]},{usable[0]}") == (usable[-1], usable[0])
    assert run(cpus=(usable[0],)).one_cpu


@pytest.mark.parametrize("text", ["", "x", "0,", "-1", "0-1", "99999", "0;1", "²"])
def test_cpus_that_are_none_are_named(text):
    with pytest.raises(ConfigError, match=r"--cpus: .*CPUs that this process may use"):
        cpus_from(text)


def test_pinning_ends_with_its_block():
    before = os.sched_getaffinity(0)
    with pinned(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_kills_are_as_many_as_fit_unless_they_were_chosen():
    made = Run(1, 10.0, (0, 1), lambda text: None)
    assert (made.kills_of(0.4, 0.1), made.kills_of(0.4, 100.0)) == (40, 3)
    assert Run(1, 10.0, (0, 1), lambda text: None, 7).kills_of(0.4, 0.1) == 7
