"""What the machine keeps for the broker."""

import os

from hvd.machine.held import Held


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_is_held_again_replaces_what_was_held_and_closes_it():
    held = Held()
    first, second = os.pipe(), os.pipe()
    held.hold("journal", list(first))
    held.hold("journal", list(second))
    assert [is_open(one) for one in (*first, *second)] == [False, False, True, True]
    assert held.by_key == {"journal": list(second)}
    held.drop_all()


def test_what_is_dropped_is_closed_and_forgotten():
    held = Held()
    pipe = os.pipe()
    held.hold("x", list(pipe))
    held.drop("x")
    held.drop("x")
    assert not any(map(is_open, pipe))
    assert held.by_key == {}


def test_everything_can_be_dropped():
    held = Held()
    pipes = [os.pipe() for _ in range(3)]
    for number, pipe in enumerate(pipes):
        held.hold(str(number), list(pipe))
    held.drop_all()
    assert not any(is_open(one) for pipe in pipes for one in pipe)
    assert held.by_key == {}


def test_what_is_kept_from_the_beginning_is_dropped_by_nobody():
    pipe, other = os.pipe(), os.pipe()
    held = Held({"uplink:tap0": list(pipe)})
    held.hold("x", list(other))
    held.drop("uplink:tap0")
    held.drop_all()
    assert held.by_key == {"uplink:tap0": list(pipe)} and all(map(is_open, pipe)) and not any(map(is_open, other))
    for descriptor in pipe:
        os.close(descriptor)
