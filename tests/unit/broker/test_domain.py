"""A domain's life as a table: every pair of life and event, and the clock that stands still while it is paused."""

import errno
from itertools import product

import pytest

from hvd.broker.domain import ALIVE, NEXT, Clock, Domain, Event, Life
from hvd.broker.errors import Refused
from hvd.transport.ids import DomId
from hvd.transport.messages import DomainConfig

L, E = Life, Event
ALLOWED = {
    L.WAITING: {E.START: L.STARTING, E.GIVE_UP: L.FAILED},
    L.STARTING: {E.STARTED: L.RUNNING, E.DUMP: L.DUMPING, E.KILL: L.DYING, E.DEATH: L.DEAD},
    L.RUNNING: {E.PAUSE: L.PAUSED, E.DUMP: L.DUMPING, E.KILL: L.DYING, E.DEATH: L.DEAD},
    L.PAUSED: {E.UNPAUSE: L.RUNNING, E.DUMP: L.DUMPING, E.KILL: L.DYING, E.DEATH: L.DEAD},
    L.DUMPING: {E.STARTED: L.DUMPING, E.KILL: L.DYING, E.DEATH: L.DEAD},
    L.DYING: {E.STARTED: L.DYING, E.KILL: L.DYING, E.DEATH: L.DEAD},
    L.DEAD: {E.START: L.STARTING, E.BACK_OFF: L.BACKING_OFF, E.GIVE_UP: L.FAILED, E.PRESERVE: L.PRESERVED,
             E.AWAIT: L.WAITING},
    L.BACKING_OFF: {E.START: L.STARTING, E.GIVE_UP: L.FAILED, E.AWAIT: L.WAITING},
    L.FAILED: {E.START: L.STARTING},
    L.PRESERVED: {E.START: L.STARTING},
}


def domain(life):
    return Domain(DomId(5), DomainConfig("ivi", "hvd:idle"), "ivi", life=life)


@pytest.mark.parametrize(("life", "event"), list(product(Life, Event)), ids=lambda member: member.name.lower())
def test_a_domain_moves_as_the_table_says_and_otherwise_stays(life, event):
    one = domain(life)
    if event in ALLOWED[life]:
        one.move(event)
        assert one.life is ALLOWED[life][event]
        return
    with pytest.raises(Refused) as refused:
        one.move(event)
    assert refused.value.errno == errno.EINVAL
    assert one.life is life
    for word in ("ivi", "domid 5", life.name.lower(), event.name.lower()):
        assert word in refused.value.text


def test_the_table_has_no_line_beyond_these():
    assert {(life, event): after for life, row in ALLOWED.items() for event, after in row.items()} == NEXT


def test_only_a_life_with_a_process_ends_in_death():
    assert {life for life in Life if (life, Event.DEATH) in NEXT} == ALIVE


@pytest.mark.parametrize(("life", "ready", "serves"), [
    (Life.RUNNING, True, True), (Life.PAUSED, True, True), (Life.RUNNING, False, False),
    (Life.BACKING_OFF, True, False), (Life.FAILED, True, False), (Life.PRESERVED, True, False),
])
def test_a_domain_that_does_not_run_serves_nobody_even_if_it_was_ready(life, ready, serves):
    one = domain(life)
    one.ready = ready
    assert one.serves is serves


def test_system_time_starts_at_zero_and_stands_still_while_paused():
    clock = Clock(started_ns=1000)
    assert clock.system_time_ns(1000) == 0
    clock.pause(1500)
    assert clock.system_time_ns(9999) == 500
    clock.unpause(2500)
    assert clock.system_time_ns(2600) == 600
    clock.unpause(9000)
    assert clock.system_time_ns(9000) == 7000


def test_a_deadline_in_system_time_moves_back_with_every_pause_and_never_comes_during_one():
    clock = Clock(started_ns=1000)
    assert clock.host_time_ns(500) == 1500
    clock.pause(1200)
    assert clock.host_time_ns(500) is None
    clock.unpause(1300)
    assert clock.host_time_ns(500) == 1600
