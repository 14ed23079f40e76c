"""What a command has the world told is said when it is in the journal: who is let run first, then the others."""

from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.held import domain_key
from hvd.broker.world import World
from hvd.transport.ids import DomId
from hvd.transport.upcalls import RUN

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
        tell=lambda domid, message: said.append((message[0], domid)),
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
        domains={GUEST: None, DRIVER: None}, birth_ports=lambda domain: (2, 1),
        channels=SimpleNamespace(ports={GUEST: bound, DRIVER: bound}),
    )  # fmt: skip
    made.runs, made.unsettled, made.news = [], [], []
    monkeypatch.setattr(made, "_served", lambda domid: [])
    return made


def test_nothing_is_said_before_the_record_then_who_is_let_run_hears_of_it_first_and_the_public_last(world, said):
    world.publish("died")
    world.hurry(SimpleNamespace(domid=GUEST))
    world.events_pending(GUEST)
    for each in (DRIVER, GUEST):
        world.let_run(SimpleNamespace(domid=each))
    assert said == []
    world.settle()
    assert said == [(RUN, DRIVER), (RUN, GUEST), ("hurry", GUEST), ("events", GUEST), "bell", "died"]
    world.settle()
    assert len(said) == 6


def test_events_of_who_has_ended_by_then_are_nobodys(world, said):
    world.events_pending(GONE)
    world.settle()
    assert said == []
