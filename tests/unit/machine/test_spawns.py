"""What the zygote was asked for: a few at a time, each once, and all again when it is another zygote."""

import os

import pytest

from hvd.machine.spawns import ASKED_MAX, PATIENCE_S, Spawn, Spawns
from hvd.machine.watch import LOOK_EVERY_S


@pytest.fixture
def spawns():
    made = Spawns()
    yield made
    made.clear()


def spawn(domid, incarnation=1):
    return Spawn(domid, incarnation, ["spawn", domid, incarnation, "name"], list(os.pipe()))


def ask_all(spawns, now=0.0):
    """What the zygote is asked for now."""
    asked = []
    while (one := spawns.to_ask()) is not None:
        asked.append(one.domid)
        spawns.asked(now)
    return asked


def is_open(one):
    try:
        os.fstat(one.descriptors[0])
    except OSError:
        return False
    return True


def test_the_zygote_is_asked_in_order_and_for_a_few_at_a_time(spawns):
    for domid in range(ASKED_MAX + 3):
        spawns.add(spawn(domid))
    assert ask_all(spawns) == list(range(ASKED_MAX))
    spawns.answered(0, 1, 0.0)
    assert ask_all(spawns) == [ASKED_MAX]
    spawns.answered(5, 1, 0.0)
    spawns.answered(3, 1, 0.0)
    assert ask_all(spawns) == [ASKED_MAX + 1, ASKED_MAX + 2]


def test_another_zygote_is_asked_for_all_that_was_not_answered(spawns):
    for domid in range(4):
        spawns.add(spawn(domid))
    ask_all(spawns)
    spawns.answered(1, 1, 0.0)
    spawns.forget_asked()
    assert ask_all(spawns) == [0, 2, 3]


def test_nothing_is_asked_before_one_that_nobody_expects_any_more_is_answered(spawns):
    """The one of the same number that is asked for after it is another."""
    for one in (spawn(1), spawn(2)):
        spawns.add(one)
    ask_all(spawns)
    spawns.disown(1, 1)
    spawns.disown(7, 7)
    spawns.add(spawn(1))
    assert spawns.expected() == [(2, 1), (1, 1)]
    assert ask_all(spawns) == []
    assert spawns.answered(2, 1, 0.0)
    assert ask_all(spawns) == []
    assert not spawns.answered(1, 1, 0.0)
    assert ask_all(spawns) == [1]
    assert spawns.answered(1, 1, 0.0)


def test_one_that_nobody_expects_any_more_goes_with_the_zygote_that_was_asked_for_it(spawns):
    one = spawn(1)
    spawns.add(one)
    spawns.add(spawn(2))
    ask_all(spawns)
    spawns.disown(1, 1)
    spawns.forget_asked()
    assert not is_open(one)
    assert ask_all(spawns) == [2]


def test_one_that_was_not_asked_for_yet_is_forgotten_when_nobody_expects_it(spawns):
    waiting = [spawn(domid) for domid in range(ASKED_MAX + 3)]
    for one in waiting:
        spawns.add(one)
    ask_all(spawns)
    spawns.disown(ASKED_MAX + 1, 1)
    assert not is_open(waiting[ASKED_MAX + 1])
    spawns.answered(0, 1, 0.0)
    spawns.answered(1, 1, 0.0)
    assert ask_all(spawns) == [ASKED_MAX, ASKED_MAX + 2]


def test_an_answer_lets_its_descriptors_go(spawns):
    one = spawn(1)
    spawns.add(one)
    ask_all(spawns)
    spawns.answered(1, 1, 0.0)
    assert not is_open(one)
    assert spawns.expected() == []


def test_an_answer_to_nothing_is_nothing(spawns):
    spawns.answered(1, 1, 0.0)
    spawns.add(spawn(2))
    spawns.answered(1, 1, 0.0)
    assert ask_all(spawns) == [2]


def test_an_answer_that_overtakes_the_asking_is_counted_right(spawns):
    """A zygote that died answered what its successor has not been asked yet."""
    for domid in range(3):
        spawns.add(spawn(domid))
    spawns.answered(1, 1, 0.0)
    assert ask_all(spawns) == [0, 2]


def test_a_zygote_is_stuck_that_was_asked_and_gives_no_answer_for_too_long(spawns):
    assert spawns.deadline() is None
    spawns.add(spawn(1))
    spawns.add(spawn(2))
    assert spawns.deadline() is None
    ask_all(spawns, 10.0)
    assert spawns.deadline() == 10.0 + PATIENCE_S
    spawns.answered(1, 1, 12.0)
    assert spawns.deadline() == 12.0 + PATIENCE_S
    spawns.answered(2, 1, 13.0)
    assert spawns.deadline() is None


def test_one_that_comes_back_to_its_loop_and_does_not_answer_is_late_and_one_that_does_not_is_looked_at_again(spawns):
    assert not spawns.is_late(1e9, is_silent=False)
    spawns.add(spawn(1))
    ask_all(spawns, 10.0)
    late_s = 10.0 + PATIENCE_S
    assert not spawns.is_late(late_s - 0.1, is_silent=False)
    assert not spawns.is_late(late_s, is_silent=True)
    assert spawns.deadline() == late_s + LOOK_EVERY_S
    assert not spawns.is_late(late_s + 0.1, is_silent=False)
    assert spawns.is_late(late_s + LOOK_EVERY_S, is_silent=False)


def test_one_that_is_asked_for_more_has_no_more_time_for_what_it_was_asked_before(spawns):
    spawns.add(spawn(1))
    ask_all(spawns, 10.0)
    spawns.add(spawn(2))
    ask_all(spawns, 12.0)
    assert spawns.deadline() == 10.0 + PATIENCE_S
