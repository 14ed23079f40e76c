"""Who is still waited for, as events come in and as things are seen to be."""

from pathlib import Path

import pytest

from hvd.toolstack.cluster import DomainInfo, DomainState, LifecycleEvent, NotReached
from hvd.toolstack.cluster.readiness import Readiness
from hvd.transport.ids import DomId, Incarnation

ONE, TWO = DomId(1), DomId(2)


def info(
    domid: DomId,
    state: DomainState,
    *,
    ready: bool,
    incarnation: int = 1,
    last_death: str = "",
    waits_for: tuple[str, ...] = (),
) -> DomainInfo:
    name, number = f"d{domid}", Incarnation(incarnation)
    return DomainInfo(domid, name, state, waits_for, number, 77, ready, 0, 64, 1, False, "k.py", last_death, 0, ())


def event(what: str, domid: DomId, incarnation: int = 1, detail: str = "") -> LifecycleEvent:
    return LifecycleEvent(what, domid, f"d{domid}", incarnation, detail, 0)


def wait_for(**least: int) -> Readiness:
    wanted = {DomId(int(name[1:])): Incarnation(number) for name, number in least.items()}
    return Readiness(wanted, Path("/nonexistent"))


def test_whoever_is_ready_when_looked_at_is_not_waited_for():
    readiness = wait_for(d1=1, d2=1)
    infos = {ONE: info(ONE, DomainState.RUNNING, ready=True), TWO: info(TWO, DomainState.STARTING, ready=False)}
    readiness.look(infos)
    assert not readiness.complete
    assert readiness.names(infos) == "d2"
    readiness.look({ONE: infos[ONE], TWO: info(TWO, DomainState.RUNNING, ready=True)})
    assert readiness.complete


@pytest.mark.parametrize("state", [DomainState.DYING, DomainState.DEAD, DomainState.BACKING_OFF, DomainState.STARTING])
def test_the_readiness_of_a_dead_incarnation_does_not_count(state):
    readiness = wait_for(d1=1)
    readiness.look({ONE: info(ONE, state, ready=True)})
    assert not readiness.complete


def test_an_incarnation_that_was_killed_does_not_count_although_it_still_looks_ready():
    readiness = wait_for(d1=2)
    readiness.look({ONE: info(ONE, DomainState.RUNNING, ready=True, incarnation=1)})
    readiness.note(event("ready", ONE, 1))
    assert not readiness.complete
    readiness.look({ONE: info(ONE, DomainState.RUNNING, ready=True, incarnation=2)})
    assert readiness.complete


def test_a_domain_that_became_ready_and_is_gone_already_was_ready():
    readiness = wait_for(d1=1)
    readiness.note(event("ready", ONE))
    readiness.look({})
    assert readiness.complete


def test_others_events_change_nothing():
    readiness = wait_for(d1=1)
    readiness.note(event("ready", TWO))
    assert not readiness.complete


@pytest.mark.parametrize("state", [DomainState.FAILED, DomainState.PRESERVED])
def test_a_domain_that_stays_as_it_is_will_not_become_ready(state):
    readiness = wait_for(d1=1)
    with pytest.raises(NotReached, match=f"domain d1 .domid 1. is {state}.*its last death: crash: boom"):
        readiness.look({ONE: info(ONE, state, ready=False, last_death="crash: boom")})


def test_a_domain_that_is_gone_is_told_with_its_last_death():
    readiness = wait_for(d1=1)
    readiness.note(event("died", ONE, detail="crash: boom"))
    with pytest.raises(NotReached, match=r"domain d1 \(domid 1\) is gone; its last death: crash: boom"):
        readiness.look({})


def test_how_a_domain_went_is_waited_for_if_it_was_there_when_we_began_to_listen():
    readiness = wait_for(d1=1)
    readiness.look({ONE: info(ONE, DomainState.RUNNING, ready=False)})
    readiness.look({})
    readiness.note(event("died", ONE, detail="crash: boom"))
    readiness.look({})
    readiness.note(event("destroyed", ONE))
    with pytest.raises(NotReached, match="crash: boom"):
        readiness.look({})


def test_news_that_a_dead_broker_took_with_it_are_not_waited_for():
    readiness = wait_for(d1=1)
    readiness.look({ONE: info(ONE, DomainState.RUNNING, ready=False)})
    readiness.note(event("hello", DomId(0)))
    with pytest.raises(NotReached, match="is gone"):
        readiness.look({})


def test_the_last_lines_of_its_console_are_told_too(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "d1.log").write_text("".join(f"line {n}\n" for n in range(20)))
    readiness = Readiness({ONE: Incarnation(1)}, tmp_path)
    with pytest.raises(NotReached) as caught:
        readiness.look({ONE: info(ONE, DomainState.FAILED, ready=False)})
    assert "line 15\n    line 16" in str(caught.value)
    assert "line 14" not in str(caught.value)


def test_at_the_deadline_everyone_who_is_late_is_named_with_their_state():
    readiness = wait_for(d1=1, d2=1)
    infos = {
        ONE: info(ONE, DomainState.BACKING_OFF, ready=False),
        TWO: info(TWO, DomainState.WAITING, ready=False, waits_for=("d1",)),
    }
    readiness.look(infos)
    text = readiness.missing(infos)
    assert "d1 (domid 1) is backing off, not ready" in text
    assert "d2 (domid 2) is waiting for d1, not ready" in text


def test_the_last_failure_is_remembered_for_when_the_machine_ends():
    readiness = wait_for(d1=1)
    assert readiness.last_failure() == ""
    readiness.note(event("died", ONE, detail="crash: boom"))
    assert "crash: boom" in readiness.last_failure()


def test_who_was_created_since_the_boot_is_waited_for_until_the_events_behind_that_say_what_has_become_of_it():
    readiness = wait_for()
    for domid in (ONE, TWO):
        readiness.want(event("created", domid))
    readiness.note(event("ready", ONE))
    readiness.look({})
    assert not readiness.complete
    readiness.note(event("died", TWO, detail="no fuel"))
    readiness.note(event("destroyed", TWO))
    with pytest.raises(NotReached, match=r"domain d2 \(domid 2\) is gone; its last death: no fuel"):
        readiness.look({})
