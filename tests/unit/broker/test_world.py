"""What a command has the world told is said when it is in the journal: who is let run first, then the others."""

from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.held import domain_key
from hvd.broker.world import World
from hvd.transport.ids import DomId
from hvd.transport.upcalls import AHEAD, RUN

GUEST, DRIVER, GONE = DomId(1), DomId(2), DomId(3)


@pytest.fixture
def said():
    return []


@pytest.fixture
def world(said, monkeypatch):
    """One that only has upcall sockets, of two domains."""
    made: Any = World.__new__(World)
    made.upcalls = SimpleNamespace(
        flush=lambda domid: said.append(("events", domid)), hurry=lambda domain: said.append(("hurry", domain.domid)),
        tell_with=lambda domid, message, references: said.append((message[0], domid, message[-1], references)),
    )  # fmt: skip
    bell = SimpleNamespace(notify=lambda: said.append("bell"))
    made.held = SimpleNamespace(
        by_key={domain_key(GUEST): [], domain_key(DRIVER): []}, settle=lambda: None, endpoint=lambda *_: bell
    )
    made.heart = SimpleNamespace(begin=lambda *_: None)
    made.store_doors = SimpleNamespace(flush=lambda: None)
    made.publisher = SimpleNamespace(publish=said.append)
    bound = {1: SimpleNamespace(channel=7, side=0)}
    made._hypervisor = SimpleNamespace(
        domains={GUEST: SimpleNamespace(ahead=()), DRIVER: SimpleNamespace(ahead=((b"call", 7, (("extent:1", 0),)),))},
        birth_ports=lambda domain: (2, 1),
        channels=SimpleNamespace(ports={GUEST: bound, DRIVER: bound}),
    )  # fmt: skip
    made.hurries, made.runs, made.unsettled, made.news = {}, [], [], []
    made.left, made.left_since_ns = [], None
    monkeypatch.setattr(made, "_served", lambda domid: [])
    return made


def test_nothing_is_said_before_the_record_then_who_is_let_run_hears_of_it_first_and_the_public_last(world, said):
    world.publish("died")
    world.events_pending(GUEST)
    for each in (DRIVER, GUEST):
        world.let_run(SimpleNamespace(domid=each))
    assert said == []
    world.settle()
    runs = [(RUN, DRIVER, [[b"call", 7, 1]], (("extent:1", 0),)), (RUN, GUEST, [], ())]
    assert said == [*runs, ("events", GUEST), "bell", "died"]
    world.settle()
    assert len(said) == 5


def test_whose_backend_has_died_hears_of_it_ahead_of_its_spare_and_all_others_and_once(world, said):
    world.let_run(SimpleNamespace(domid=DRIVER))
    world.hurry(SimpleNamespace(domid=GUEST))
    world.events_pending(DRIVER)
    world.events_pending(GUEST)
    world.settle()
    told = [(each[0], each[1]) for each in said if each != "bell"]
    assert told == [("hurry", GUEST), ("events", GUEST), (RUN, DRIVER), ("events", DRIVER)]


def test_while_a_guest_waits_for_its_backend_what_nobody_waits_for_is_left(world, said):
    world.hurry(SimpleNamespace(domid=GUEST))
    world.publish("died")
    world.left.append(lambda: said.append("left"))
    world.held.settle = lambda: said.append("let go")
    world.settle()
    world.publish("called")
    world.settle()
    assert [each for each in said if isinstance(each, str)] == ["bell"]
    assert world.left_since_ns is not None
    world.clear_away()
    assert said[-4:] == ["left", "let go", "died", "called"]
    world.publish("later")
    world.settle()
    assert said[-1] == "later"


def test_what_a_spare_finds_answered_comes_in_as_many_messages_as_it_takes_the_last_lets_it_run(world, said):
    many = tuple((b"call %d" % number, None, (("channel:1", 0),) * 3) for number in range(10))
    world._hypervisor.domains[DRIVER].ahead = many
    world.let_run(SimpleNamespace(domid=DRIVER))
    world.settle()
    assert [(kind, len(entries), len(references)) for kind, _, entries, references in said] == [
        (AHEAD, 5, 15), (RUN, 5, 15)
    ]  # fmt: skip


def test_events_of_who_has_ended_by_then_are_nobodys(world, said):
    world.events_pending(GONE)
    world.settle()
    assert said == []


def test_whoever_is_born_a_spare_too_takes_what_was_made_ahead_and_it_is_made_again(world, said):
    world.refusals = []
    world.ready_made = SimpleNamespace(taken=lambda: said.append("taken"))
    world.held.create_domain = said.append
    world.spares = SimpleNamespace(create=said.append)
    world.create_domain(GUEST)
    world.create_spare(DRIVER)
    assert said == ["taken", domain_key(GUEST), "taken", DRIVER]
