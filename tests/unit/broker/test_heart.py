"""When heartbeats are raised and looked at, and what a broker that comes late, or a domain that is paused, changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.domain import Domain, Life
from hvd.broker.heart import GRID_NS, MS, Heart
from hvd.broker.heartbeats import Doing
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.messages import DomainConfig

H = 100 * MS


class Ends:
    """The far ends of the bells, and the kernel's word on the processes."""

    def __init__(self) -> None:
        self.deaf: set[DomId] = set()
        self.untaken: set[DomId] = set()
        self.rung: list[DomId] = []
        self.waiting_for: set[DomId] = set()
        self.doing = Doing.STOPPED
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.hidden = False

    def ring(self, domain: Domain) -> None:
        self.rung.append(domain.domid)
        if domain.domid in self.deaf:
            self.untaken.add(domain.domid)

    def has_taken(self, domain: Domain) -> bool:
        return domain.domid not in self.untaken

    def is_waited_for(self, domain: Domain) -> bool:
        return domain.domid in self.waiting_for

    def serves(self, domain: Domain) -> bool:
        return False

    def process(self, pid: int) -> Any:
        if self.hidden:
            raise PermissionError(pid)
        self.opened.append(pid)
        return SimpleNamespace(look=lambda: (self.doing, 0, 0), close=lambda: self.closed.append(pid))


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def heart(ends: Ends) -> Any:
    return Heart(ends, ends.process)  # type: ignore[arg-type]


def running(domid: int, heartbeat_ms: int = 100) -> Domain:
    config = DomainConfig(f"d{domid}", "hvd:idle", heartbeat_ms=heartbeat_ms)
    return Domain(DomId(domid), config, config.name, Life.RUNNING, Incarnation(1), pid=1000 + domid)


def beat(heart: Heart, times: int) -> list[str]:
    """Look in time, so often; what is said of whom."""
    said = []
    for _ in range(times):
        due = heart.next_ns()
        assert due is not None
        said += [why for _, why in heart.look(due)]
    return said


def test_a_domain_that_takes_its_beats_is_rung_at_each_and_its_process_never_looked_at(heart, ends):
    heart.begin(running(1), 0)
    assert beat(heart, 3) == []
    assert (ends.rung, ends.opened, heart.verdict(1)) == ([1, 1, 1], [], "beating")


def test_one_that_does_not_is_rung_once_and_found(heart, ends):
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    assert beat(heart, 3) == ["it hangs: its process has been stopped for 0.1 s"]
    assert (ends.rung, ends.opened, heart.verdict(1)) == ([1], [1001], "stopped")


def test_it_is_told_once_more_at_each_beat_while_nothing_ends_it(heart, ends):
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    assert len(beat(heart, 5)) == 3


def test_a_stop_shorter_than_the_heartbeat_is_no_hang(heart, ends):
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    assert beat(heart, 2) == []
    ends.untaken.clear()
    assert beat(heart, 1) == []
    assert heart.verdict(1) == "beating"


def test_a_broker_that_looks_more_than_a_beat_too_late_judges_nobody_and_begins_anew(heart, ends):
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    beat(heart, 2)
    due = heart.next_ns()
    assert list(heart.look(due + H + 1)) == []
    assert beat(heart, 1) == []
    assert len(beat(heart, 1)) == 1


def test_beats_are_never_closer_than_the_heartbeat_and_fall_together(heart, ends):
    heart.begin(running(1), 1)
    heart.begin(running(2), GRID_NS - 1)
    due = heart.next_ns()
    assert due == H + GRID_NS
    list(heart.look(due + 7))
    assert ends.rung == [1, 2]
    assert heart.next_ns() >= due + 7 + H


@pytest.mark.parametrize("life", [Life.PAUSED, Life.DUMPING, Life.DYING, Life.STARTING])
def test_who_does_not_run_is_not_judged_and_begins_anew_when_it_does(heart, ends, life):
    ends.deaf.add(1)
    domain = running(1)
    heart.begin(domain, 0)
    beat(heart, 2)
    domain.life = life
    assert beat(heart, 20) == []
    assert heart.verdict(1) == ""
    domain.life = Life.RUNNING
    assert beat(heart, 2) == []
    assert len(beat(heart, 1)) == 1


def test_of_one_that_takes_its_beats_again_nothing_is_kept_open(heart, ends):
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    beat(heart, 2)
    ends.untaken.clear()
    beat(heart, 1)
    assert (ends.opened, ends.closed, heart.verdict(1)) == ([1001], [1001], "beating")


def test_a_heartbeat_of_0_is_none(heart):
    heart.begin(running(1, 0), 0)
    assert (heart.next_ns(), heart.verdict(1)) == (None, "")


def test_the_next_incarnation_begins_anew_and_the_last_ones_beat_is_gone(heart, ends):
    ends.deaf.add(1)
    domain = running(1)
    heart.begin(domain, 0)
    beat(heart, 2)
    domain.incarnation = Incarnation(2)
    heart.begin(domain, 10 * H)
    assert (ends.closed, heart.next_ns()) == ([1001], 11 * H)
    assert beat(heart, 2) == []
    heart.end(domain.domid)
    assert (ends.closed, heart.next_ns()) == ([1001, 1001], None)


def test_of_a_process_that_cannot_be_seen_nothing_is_said(heart, ends):
    ends.hidden = True
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    assert beat(heart, 100) == []
    assert heart.verdict(1) == "unseen"


def test_who_sleeps_is_asked_after_only_then(heart, ends):
    ends.doing = Doing.ASLEEP
    ends.deaf.add(1)
    heart.begin(running(1), 0)
    assert beat(heart, 200) == []
    ends.waiting_for.add(1)
    assert any("events waited for it" in why for why in beat(heart, 110))


def test_of_many_domains_only_the_one_that_hangs_is_named(heart, ends):
    ends.deaf.add(7)
    for number in range(20):
        heart.begin(running(number), 0)
    beat(heart, 2)
    assert [domain.domid for domain, _ in heart.look(heart.next_ns())] == [7]
