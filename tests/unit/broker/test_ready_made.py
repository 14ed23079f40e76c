"""What the next domain is born with: made once, made again when some was taken, and no matter if it is refused."""

import errno
import os
import time
from types import SimpleNamespace

import pytest

from hvd.broker import ready_made
from hvd.broker.ready_made import FIRST, OVERDUE_NS, ReadyMade
from hvd.transport.ids import DomId

SECRET = b"s" * 32


class Maker:
    """Of descriptors and endpoints."""

    def __init__(self):
        self.made = []
        self.used, self.most = 50, 100
        self.refuses = False

    def make_ready(self, *of):
        if self.refuses:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.made.append(of)


@pytest.fixture
def maker():
    return Maker()


@pytest.fixture
def ready(maker):
    return ReadyMade(maker, maker)


def test_it_is_made_for_the_next_domid_and_again_when_there_is_another_or_some_was_taken(ready, maker):
    assert ready.lacks(DomId(3))
    ready.make(DomId(3), SECRET)
    assert (ready.lacks(DomId(3)), ready.lacks(DomId(4))) == (False, True)
    assert maker.made == [(), (DomId(3), FIRST, SECRET)]
    ready.taken()
    assert ready.lacks(DomId(3))


def test_what_is_refused_is_not_tried_again_for_the_same_domid(ready, maker):
    maker.refuses = True
    ready.make(DomId(3), SECRET)
    assert (ready.lacks(DomId(3)), ready.lacks(DomId(4))) == (False, True)


def test_nothing_is_made_where_half_of_all_descriptors_are_in_use(ready, maker):
    maker.used = 51
    ready.make(DomId(3), SECRET)
    assert (maker.made, ready.lacks(DomId(3))) == ([], False)


def test_what_is_made_for_the_next_is_overdue_when_nobody_has_been_born_for_long(ready, monkeypatch):
    now_ns = time.monotonic_ns()
    monkeypatch.setattr(ready_made, "time", SimpleNamespace(monotonic_ns=lambda: now_ns + OVERDUE_NS + 10**9))
    assert ready.is_overdue
    ready.taken()
    assert not ready.is_overdue
