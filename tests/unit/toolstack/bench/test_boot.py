"""Whether what was heard of a boot proves that it kept its order."""

import pytest

from hvd.toolstack.bench.boot import CHAIN, in_order

RIGHT = [event for name in CHAIN for event in ((name, "starting"), (name, "ready"))]


def swapped(first, second):
    events = list(RIGHT)
    one, two = events.index(first), events.index(second)
    events[one], events[two] = events[two], events[one]
    return events


@pytest.mark.parametrize("missed", range(len(RIGHT) - 3 + 1))
def test_an_order_is_right_though_its_beginning_was_missed(missed):
    assert in_order(RIGHT[missed:])


def test_bystanders_do_not_matter():
    assert in_order([("bystander", "ready"), *RIGHT, ("bystander", "starting")])


@pytest.mark.parametrize("index", range(1, len(CHAIN)))
def test_a_start_before_what_it_waits_for_is_wrong(index):
    assert not in_order(swapped((CHAIN[index - 1], "ready"), (CHAIN[index], "starting")))


def test_what_was_not_heard_proves_nothing():
    assert not in_order([])
    assert not in_order([(CHAIN[-1], "starting"), (CHAIN[-1], "ready")])
