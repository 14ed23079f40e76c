"""Waiting, where no domain is needed for it."""

from types import SimpleNamespace
from typing import Any

import pytest

from hvd.domains.runtime import LEAVING_NS, Runtime


class Asked:
    """A waiter and grants that note what they are asked for; pages go at the given try."""

    def __init__(self, events, goes_at):
        self.waits: list[int] = []
        self._events, self._tries, self._goes_at = list(events), 0, goes_at
        self.runtime: Any = SimpleNamespace(
            waiter=SimpleNamespace(wait=self._wait), grants=self, _give_back_ns=0,
        )  # fmt: skip

    def _wait(self, timeout_ns):
        self.waits.append(timeout_ns)
        self.runtime._give_back_ns = 0  # its time is over
        return self._events.pop(0) if self._events else ()

    @property
    def leaving(self):
        return self._tries < self._goes_at

    def give_back_what_is_free(self):
        self._tries += 1

    def sleep(self, timeout_ns):
        return Runtime._sleep(self.runtime, timeout_ns)


@pytest.mark.parametrize("timeout_ns", [-1, 10 * LEAVING_NS])
def test_pages_that_a_peer_has_mapped_yet_are_given_back_while_nothing_happens(timeout_ns):
    asked = Asked([(), (), (7,)], goes_at=2)
    assert asked.sleep(timeout_ns) == (7,)
    assert not asked.leaving
    assert asked.waits == [LEAVING_NS, LEAVING_NS, timeout_ns if timeout_ns < 0 else timeout_ns - 2 * LEAVING_NS]


def test_what_happens_meanwhile_is_told_at_once():
    asked = Asked([(7,)], goes_at=2)
    assert asked.sleep(-1) == (7,)
    assert asked.waits == [LEAVING_NS]


def test_a_short_wait_is_as_short_as_it_was_asked_to_be():
    asked = Asked([], goes_at=2)
    assert asked.sleep(5) == ()
    assert asked.waits == [5]


def test_who_gives_nothing_back_waits_as_long_as_it_says():
    asked = Asked([], goes_at=0)
    assert asked.sleep(-1) == ()
    assert asked.waits == [-1]
