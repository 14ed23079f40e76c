"""Owns a switch and the ports that a test makes in it."""

import pytest

from hvd.transport._native import NetSwitch

from .ends import RawPort


@pytest.fixture
def switch():
    return NetSwitch()


@pytest.fixture
def make(switch):
    made = []

    def port(number=1, post=200, **settings):
        made.append(RawPort(switch, number, **settings))
        if post:
            made[-1].post(post)
        return made[-1]

    yield port
    for each in made:
        each.port.close()
