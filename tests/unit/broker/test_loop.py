"""The loop's fairness: whoever has more to say than its turn allows goes behind everybody who waits."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker import loop
from hvd.broker.ledger import LEFT_BY_ANYBODY
from hvd.broker.loop import CALLS_PER_TURN, LEFT_NS, QUIET_NS, TURN_NS, Broker
from hvd.broker.sessions import Reply
from hvd.broker.state import AUDITED, DIED, TICK, TRACE_OVER
from hvd.broker.withheld import Withheld
from hvd.transport import messages as m
from hvd.transport.codec import pack_request
from hvd.transport.ids import DomId
from hvd.transport.pulse import BEAT_EVERY_S

FLOOD, MODEST = DomId(1), DomId(2)
NOW_NS = 10**12
"""No time passes unless a test says so: a turn is over behind TURN_NS, which any process may stand still for."""


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
    made.worked_for, made._recovery = [], None
    made._world = SimpleNamespace(
        endpoints=SimpleNamespace(server=servers.get, retired=0),
        lacks_ready=False,
        may_make_ready=lambda *, idle: False,
        cpus=SimpleNamespace(worked_for=made.worked_for.append),
        heart=SimpleNamespace(look=lambda now_ns: [], next_ns=lambda: None),
        faults=SimpleNamespace(of_messages={}),
        upcalls=SimpleNamespace(hear_first=lambda domain: None, heard_by_endpoint=lambda domid: None),
        left_since_ns=None,
    )
    store = SimpleNamespace(
        has_unsettled=False, is_settling=lambda domid: domid == FLOOD, has_to_wait=lambda domid: False
    )
    made._withheld = Withheld()
    made._state = SimpleNamespace(hypervisor=SimpleNamespace(domains={}, store=store))
    made._ready, made._due_ns = deque(), None
    made.served = []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic_ns=lambda: NOW_NS))

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


@pytest.mark.parametrize(("recovers", "wait_s"), [(False, QUIET_NS / 1e9), (True, BEAT_EVERY_S)])
def test_while_a_domain_is_put_off_nobody_is_woken_to_make_what_is_not_made_then(broker, recovers, wait_s):
    broker._state = SimpleNamespace(hypervisor=SimpleNamespace(next_deadline_ns=lambda: None))
    broker._world.trace, broker._world.lacks_ready = SimpleNamespace(lease_left_s=lambda: None), True
    broker._recovery = SimpleNamespace(next_ns=1 << 62) if recovers else None
    assert broker._wait_s() == wait_s


@pytest.mark.parametrize("room", [True, False])
def test_what_the_policy_denied_is_no_command_where_there_is_room_for_deaths_and_time_alone(broker, monkeypatch, room):
    commands = list[str]()
    broker._world.audit_log = SimpleNamespace(take=lambda: [(FLOOD, "avc:  denied", 1)])
    broker._ledger = SimpleNamespace(has_room=lambda state, leaves: room or leaves < LEFT_BY_ANYBODY)
    monkeypatch.setattr(broker, "_command", lambda command: commands.append(command[0]))
    broker._write_audit()
    assert commands == ([AUDITED] if room else [])


@pytest.mark.parametrize(("due_ns", "carried_out"), [(None, [DIED]), (0, [DIED, TICK]), (1 << 62, [DIED])])
def test_what_is_due_with_a_death_is_done_before_anybody_is_heard(broker, monkeypatch, due_ns, carried_out):
    """Its spare is let run."""
    told = [[DIED, int(FLOOD), 1, "killed by SIGKILL", ""], []]
    monkeypatch.setattr(loop, "receive_message", lambda link: told)
    hypervisor = SimpleNamespace(next_deadline_ns=lambda: due_ns, is_expected=lambda domid, incarnation: False)
    broker._link, broker._disowned, broker._state = None, set(), SimpleNamespace(hypervisor=hypervisor)
    commands: list[str] = []
    monkeypatch.setattr(broker, "_command", lambda command: commands.append(command[0]))
    broker._read_link()
    assert commands == carried_out


@pytest.mark.parametrize(
    ("left_ns", "idle", "cleared"), [(None, True, 0), (0, True, 1), (0, False, 0), (LEFT_NS + 1, False, 1)]
)
def test_what_nobody_waits_for_is_done_when_nobody_asks_or_it_has_been_left_for_long(broker, left_ns, idle, cleared):
    done: list[bool] = []
    broker._world.left_since_ns = None if left_ns is None else NOW_NS - left_ns
    broker._world.clear_away = lambda: done.append(True)
    broker._clear_away(idle=idle)
    assert len(done) == cleared


@pytest.mark.parametrize(
    ("retired", "idle", "overdue", "closed"),
    [(0, True, True, 0), (1, True, False, 1), (1, False, False, 0), (1, False, True, 1)],
)
def test_endpoints_of_the_dead_are_closed_when_nobody_asks_or_they_have_waited_for_long(
    broker, retired, idle, overdue, closed
):
    done: list[bool] = []
    broker._world.endpoints = SimpleNamespace(
        retired=retired, retired_is_overdue=overdue, close_retired=lambda: done.append(True)
    )
    broker._clear_away(idle=idle)
    assert len(done) == closed


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


def test_a_turn_is_over_behind_a_hypercall_that_took_long(broker, monkeypatch):
    now_ns = [0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic_ns=lambda: now_ns[0]))

    def answer(domid: Any, client: bytes, body: bytes) -> Reply:
        broker.served.append(domid)
        now_ns[0] += TURN_NS // 2
        return Reply(1, 0, None)

    monkeypatch.setattr(broker, "_answer", answer)
    broker._mark_ready(FLOOD)
    broker._serve(broker._ready.popleft())
    assert broker.served == [FLOOD] * 2 and list(broker._ready) == [FLOOD]


def test_who_may_reach_a_quota_waits_with_what_it_asks_the_store_and_with_nothing_else(broker, monkeypatch):
    watchdog, write = m.SchedWatchdog(0, 5), m.StoreWrite(0, "data/x", b"")
    server = broker._world.endpoints.server(MODEST)
    calls = (watchdog, write, watchdog, m.Multicall([]), watchdog)
    server.waiting = deque(pack_request(call, number, 0, 0) for number, call in enumerate(calls))
    store, asked = broker._state.hypervisor.store, []
    monkeypatch.setattr(broker, "_answer_to", lambda server, domid, client, body: asked.append(body))
    store.has_unsettled, store.has_to_wait = True, lambda domid: True
    broker._mark_ready(MODEST)
    waiting = list(server.waiting)
    for _ in range(3):
        broker._serve(broker._ready.popleft())
        assert asked == waiting[:1]
    store.has_to_wait = lambda domid: len(asked) == 3
    broker._serve(broker._ready.popleft())
    assert asked == waiting[:3]
    store.has_unsettled = False
    broker._serve(broker._ready.popleft())
    assert asked == waiting and not broker._ready


def test_what_waits_goes_with_the_endpoint_that_it_has_come_by(broker, monkeypatch):
    store, asked = broker._state.hypervisor.store, []
    monkeypatch.setattr(broker, "_answer_to", lambda server, domid, client, body: asked.append(body))
    store.has_unsettled, store.has_to_wait = True, lambda domid: True
    broker._world.endpoints.server(MODEST).waiting = deque([pack_request(m.StoreRead(0, "data"), 1, 0, 0)])
    broker._mark_ready(MODEST)
    broker._serve(broker._ready.popleft())
    store.has_unsettled = False
    servers = {MODEST: Server([b"the next incarnation's"])}
    broker._world.endpoints.server = servers.get
    broker._serve(broker._ready.popleft())
    assert asked == [b"the next incarnation's"]


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
    ("turns", "drafting", "retired", "left_ns", "waits"),
    [
        ([(1, 1), (2, 2), (1, 0), (1, 1)], False, 0, None, 3),
        ([(1, 1), (2, 1), (1, 1)], False, 0, None, 2),
        ([(1, 1), (0, 0), (1, 1)], False, 0, None, 2),
        ([(1, 1), (1, 1)], True, 0, None, 1),
        ([(1, 1), (1, 1)], False, 1, None, 1),
        ([(1, 1), (1, 1)], False, 0, 10**9, 1),
    ],
    ids=["until one leaves something to do", "or somebody else has spoken", "or nobody", "or a snapshot is begun",
         "but not with something to clear away", "nor with news that are left"],
)  # fmt: skip
def test_after_requests_that_leave_nothing_to_do_it_waits_again_at_once(  # noqa: PLR0917
    broker, monkeypatch, turns, drafting, retired, left_ns, waits
):
    """`turns`: how many were heard in one wait, and of how many of them nothing is left to do."""
    waited: list[float] = []
    monkeypatch.setattr(broker, "_wait_s", lambda: 100.0)
    monkeypatch.setattr(broker, "_is_busy", lambda: False)
    broker._first_ns = NOW_NS + 50 * 10**9
    broker._ledger = SimpleNamespace(is_drafting=drafting)
    broker._world.endpoints.retired, broker._world.left_since_ns = retired, left_ns
    doors = broker._world.store_doors = SimpleNamespace(plain_turns=7)

    def poll(wait_s: float) -> int:
        waited.append(wait_s)
        heard, plain = turns[len(waited) - 1]
        doors.plain_turns += plain
        return int(heard)

    broker._poller = SimpleNamespace(poll=poll)
    broker._hear()
    assert len(waited) == waits and waited[0] == 100.0
    assert set(waited[1:]) <= {50.0}, "no longer than until something is due"


def test_when_something_is_due_nothing_more_is_heard_before_it(broker, monkeypatch):
    monkeypatch.setattr(broker, "_wait_s", lambda: 100.0)
    monkeypatch.setattr(broker, "_is_busy", lambda: False)
    broker._first_ns = NOW_NS
    broker._ledger = SimpleNamespace(is_drafting=False)
    doors = broker._world.store_doors = SimpleNamespace(plain_turns=0)
    waited: list[float] = []

    def poll(wait_s: float) -> int:
        waited.append(wait_s)
        doors.plain_turns += 1
        return 1

    broker._poller = SimpleNamespace(poll=poll)
    assert broker._hear() and waited == [100.0]
