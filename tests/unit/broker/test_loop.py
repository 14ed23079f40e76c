"""The loop's fairness: whoever has more to say than its turn allows goes behind everybody who waits."""

import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.loop import CALLS_PER_TURN, Broker
from hvd.broker.sessions import Reply
from hvd.broker.state import TRACE_OVER
from hvd.transport.ids import DomId
from hvd.transport.pulse import BEAT_EVERY_S

FLOOD, MODEST = DomId(1), DomId(2)


class Server:
    """An endpoint with hypercalls that wait to be read, and the replies that were sent."""

    def __init__(self, waiting):
        self.waiting, self.replies = deque(waiting), 0

    def receive(self):
        return (b"client", self.waiting.popleft()) if self.waiting else None

    def reply(self, client, reply):
        self.replies += 1


@pytest.fixture
def broker(monkeypatch):
    """A broker without a world: two endpoints, and an order of who was served."""
    made: Any = Broker.__new__(Broker)
    servers = {FLOOD: Server([b"call"] * 100), MODEST: Server([b"call"])}
    made.worked_for = []
    made._world = SimpleNamespace(
        endpoints=SimpleNamespace(server=servers.get, retired=0),
        cpus=SimpleNamespace(worked_for=made.worked_for.append),
        heart=SimpleNamespace(look=lambda now_ns: [], next_ns=lambda: None),
        faults=SimpleNamespace(of_messages={}),
        upcalls=SimpleNamespace(hear_first=lambda domain: None, heard_by_endpoint=lambda domid: None),
    )
    store = SimpleNamespace(has_unsettled=False, is_settling=lambda domid: domid == FLOOD)
    made._state = SimpleNamespace(hypervisor=SimpleNamespace(domains={}, store=store))
    made._ready, made._due_ns = deque(), None
    made.served = []

    def answer(domid, client, body):
        made.served.append(domid)
        return Reply(1, 0, None)

    monkeypatch.setattr(made, "_answer", answer)
    return made


@pytest.mark.parametrize(
    ("left_s", "commands", "wait_s"), [(None, [], BEAT_EVERY_S), (0.1, [], 0.1), (-1.0, [TRACE_OVER], 0)]
)
def test_a_trace_whose_lease_is_over_is_ended_by_a_command(broker, monkeypatch, left_s, commands, wait_s):
    broker._state = SimpleNamespace(hypervisor=SimpleNamespace(next_deadline_ns=lambda: None))
    broker._world.trace = SimpleNamespace(lease_left_s=lambda: left_s)
    carried_out: list[Any] = []
    monkeypatch.setattr(broker, "_command", carried_out.append)
    broker._tick()
    assert ([command[0] for command in carried_out], broker._wait_s()) == (commands, wait_s)


def test_a_caller_whose_removal_is_not_settled_waits_and_others_do_not(broker):
    broker._state.hypervisor.store.has_unsettled = True
    for caller in (FLOOD, MODEST):
        broker._mark_ready(caller)
    for _ in range(5):
        for _ in range(len(broker._ready)):
            broker._serve(broker._ready.popleft())
    assert broker.served == [MODEST] and list(broker._ready) == [FLOOD]
    broker._state.hypervisor.store.has_unsettled = False
    broker._serve(broker._ready.popleft())
    assert broker.served.count(FLOOD) == CALLS_PER_TURN


def test_after_calls_per_turn_hypercalls_it_is_the_next_callers_turn(broker):
    for caller in (FLOOD, MODEST):
        broker._mark_ready(caller)
    while broker._ready:
        broker._serve(broker._ready.popleft())
    assert broker.served.index(MODEST) == CALLS_PER_TURN
    assert broker.served.count(FLOOD) == 100
    assert broker.worked_for == broker.served, "it works where they are for whom"


@pytest.mark.parametrize(
    ("found", "quiet"),
    [
        ((False, False, 0.5), True),
        ((True, False, 0.5), False),
        ((False, True, 0.5), False),
        ((False, False, 0.001), False),
    ],
)
def test_it_is_quiet_only_when_a_wait_has_passed_in_which_nobody_asked(broker, monkeypatch, found, quiet):
    """What is done then, a snapshot above all, is in nobody's way: not between two turns of one who has said much."""
    waited: list[float] = []
    heard, left, due_s = bool(found[0]), found[1], found[2]
    monkeypatch.setattr(broker, "_wait_s", lambda: due_s)
    monkeypatch.setattr(broker, "_is_busy", lambda: left)

    def poll(wait_s: float) -> int:
        waited.append(wait_s)
        return int(heard)

    broker._poller = SimpleNamespace(poll=poll)
    broker._world.store_doors = SimpleNamespace(plain_turns=0)
    assert broker._hear() is not quiet
    assert waited == [0.0 if left else due_s]


@pytest.mark.parametrize(
    ("turns", "drafting", "retired", "waits"),
    [
        ([(1, 1), (2, 2), (1, 0), (1, 1)], False, 0, 3),
        ([(1, 1), (2, 1), (1, 1)], False, 0, 2),
        ([(1, 1), (0, 0), (1, 1)], False, 0, 2),
        ([(1, 1), (1, 1)], True, 0, 1),
        ([(1, 1), (1, 1)], False, 1, 1),
    ],
    ids=["until one leaves something to do", "or somebody else has spoken", "or nobody", "or a snapshot is begun",
         "but not with something to clear away"],
)  # fmt: skip
def test_after_requests_that_leave_nothing_to_do_it_waits_again_at_once(  # noqa: PLR0917
    broker, monkeypatch, turns, drafting, retired, waits
):
    """`turns`: how many were heard in one wait, and of how many of them nothing is left to do."""
    waited: list[float] = []
    monkeypatch.setattr(broker, "_wait_s", lambda: 100.0)
    monkeypatch.setattr(broker, "_is_busy", lambda: False)
    broker._first_ns = time.monotonic_ns() + 50 * 10**9
    broker._ledger = SimpleNamespace(is_drafting=drafting)
    broker._world.endpoints.retired = retired
    doors = broker._world.store_doors = SimpleNamespace(plain_turns=7)

    def poll(wait_s: float) -> int:
        waited.append(wait_s)
        heard, plain = turns[len(waited) - 1]
        doors.plain_turns += plain
        return int(heard)

    broker._poller = SimpleNamespace(poll=poll)
    broker._hear()
    assert len(waited) == waits and waited[0] == 100.0
    assert all(49.0 < wait_s <= 50.0 for wait_s in waited[1:]), "no longer than until something is due"


def test_when_something_is_due_nothing_more_is_heard_before_it(broker, monkeypatch):
    monkeypatch.setattr(broker, "_wait_s", lambda: 100.0)
    monkeypatch.setattr(broker, "_is_busy", lambda: False)
    broker._first_ns = time.monotonic_ns()
    broker._ledger = SimpleNamespace(is_drafting=False)
    doors = broker._world.store_doors = SimpleNamespace(plain_turns=0)
    waited: list[float] = []

    def poll(wait_s: float) -> int:
        waited.append(wait_s)
        doors.plain_turns += 1
        return 1

    broker._poller = SimpleNamespace(poll=poll)
    assert broker._hear() and waited == [100.0]
