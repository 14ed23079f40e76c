"""Exactly once: what a new broker knows of its predecessor's hypercalls, and does about those that killed it."""

import errno
from unittest.mock import ANY

import pytest

from hvd.broker.domain import Life
from hvd.broker.sessions import Sessions, domain_session, store_session
from hvd.broker.state import CRASHES_MAX, FOUND_OPEN_MAX, State
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_request
from hvd.transport.ids import DOM0, DOMID_SELF, ExtentId
from hvd.transport.messages import DeviceConfig
from hvd.transport.xs_wire import Type

TOOLSTACK = "t:aa"


class Ledger:
    """A state and its journal, as the broker keeps them."""

    def __init__(self, board):
        self.board = board
        self.state = State(board.h, Sessions())
        self.snapshot()

    def snapshot(self):
        self.records = [self.state.snapshot()]

    def call(self, caller, session, sequence, message, *, events=0, descriptors=0):
        """What the broker does with a request that it gets, a repeat included."""
        body = pack_request(message, sequence, events, descriptors)
        known = self.state.repeated(session, sequence)
        if known is not None:
            return known
        command = ["call", self.board.now, session, caller, body]
        self.state.apply(command)
        self.records.append(self.state.record(command))
        reply = self.state.sessions.reply(session)
        assert reply is not None
        return reply

    def apply(self, *command):
        self.state.apply(list(command))
        self.records.append(self.state.record(list(command)))

    def broker_dies(self):
        """Another one takes over, with what is in the journal."""
        self.state = State.restore(self.records)
        self.board.h = self.state.hypervisor
        self.board.h.attach(self.board.hardware)
        self.snapshot()


@pytest.fixture
def guest(board):
    return board.boot("guest", on_crash="preserve")


@pytest.fixture
def ledger(board, guest):
    return Ledger(board)


@pytest.fixture
def session(board, guest):
    return domain_session(guest, board.h.domains[guest].incarnation)


ALLOC = m.EvtchnAllocUnbound(DOMID_SELF, DOM0)


@pytest.mark.parametrize("dies", [False, True])
def test_a_repeated_hypercall_is_answered_alike_descriptors_too_and_not_carried_out_again(ledger, guest, session, dies):
    first = ledger.call(guest, session, 5, ALLOC)
    if dies:
        ledger.broker_dies()
    assert ledger.call(guest, session, 5, ALLOC) == first
    assert len(first.descriptors) == 3
    assert len(ledger.state.hypervisor.channels.ports[guest]) == 3


@pytest.mark.parametrize("dies", [False, True])
def test_an_old_number_is_not_carried_out_whatever_it_asks_for(ledger, guest, session, dies):
    ledger.call(guest, session, 5, ALLOC)
    if dies:
        ledger.broker_dies()
    reply = ledger.call(guest, session, 4, ALLOC)
    assert (reply.errno, reply.sequence) == (errno.ESTALE, 4)
    assert "the last one was 5" in reply.value
    assert len(ledger.state.hypervisor.channels.ports[guest]) == 3


def test_numbers_may_leave_gaps(ledger, guest, session):
    assert ledger.call(guest, session, 5, ALLOC).errno == 0
    assert ledger.call(guest, session, 500, ALLOC).errno == 0


def test_callers_do_not_share_numbers(ledger, guest, session):
    ledger.call(guest, session, 5, ALLOC)
    assert ledger.call(DOM0, TOOLSTACK, 1, m.DomctlPause(guest)).errno == 0
    assert ledger.call(DOM0, "t:bb", 1, m.DomctlUnpause(guest)).errno == 0


@pytest.mark.parametrize("dies", [False, True])
def test_a_refused_hypercall_stays_refused_when_it_is_repeated(ledger, guest, session, dies):
    bad = m.GnttabFree(ExtentId(77))
    first = ledger.call(guest, session, 5, bad)
    if dies:
        ledger.broker_dies()
    assert first.errno == errno.EINVAL
    assert ledger.call(guest, session, 5, bad) == first


def test_what_the_host_refused_is_refused_in_the_replay_too(ledger, board, guest, session):
    ledger.call(guest, session, 1, ALLOC)
    board.hardware.refused = {"create_channel"}
    refused = ledger.call(guest, session, 2, ALLOC)
    board.hardware.refused = set()
    assert refused.errno == errno.EMFILE
    ledger.broker_dies()
    assert len(ledger.state.hypervisor.channels.ports[guest]) == 3
    assert ledger.call(guest, session, 2, ALLOC) == refused
    assert ledger.call(guest, session, 3, ALLOC).value["port"] == 4


def test_a_domain_that_the_host_refused_is_failed_in_the_replay_too(ledger, board):
    board.hardware.refused = {"start_domain"}
    dom = ledger.call(DOM0, TOOLSTACK, 1, m.DomctlCreate(m.DomainConfig("ivi", "hvd:idle"))).value
    board.hardware.refused = set()
    before = ledger.state.hypervisor.domains[dom]
    ledger.broker_dies()
    after = ledger.state.hypervisor.domains[dom]
    assert (after.life, after.last_death) == (before.life, before.last_death)
    assert after.life is Life.FAILED
    assert "Too many open files" in after.last_death


def test_a_read_leaves_no_trace_and_may_be_carried_out_twice(ledger, guest, session):
    ledger.call(guest, session, 5, ALLOC)
    body = m.StoreRead(0, "name")
    value = ledger.state.call(session, guest, 6, body, 0).value
    assert value == b"guest"
    assert ledger.state.repeated(session, 6) is None


def test_a_dead_incarnations_session_is_forgotten(ledger, board, guest, session):
    ledger.call(guest, session, 5, ALLOC)
    ledger.apply("died", board.now, guest, 1, "killed by SIGKILL", "")
    assert ledger.state.repeated(session, 5) is None


def test_when_an_end_was_known_is_told_by_an_event_of_its_incarnation_behind_its_death(ledger, board, guest):
    ledger.apply("died", board.now, guest, 1, "killed by SIGKILL", "")
    died_at_ns = ledger.state.hypervisor.events.kept[-1].at_ns
    moments = (board.now + ms * 1_000_000 for ms in (1, 2, 5))
    ledger.apply("reaped", board.now + 9_000_000, guest, 1, "", *moments)
    ledger.apply("reaped", board.now + 9_000_000, -1, 0, "broker", board.now, board.now, board.now)
    ledger.apply("reaped", board.now + 9_000_000, 77, 1, "", board.now, board.now, board.now)  # it is gone for good
    *_, reaped, broker = ledger.state.hypervisor.events.kept
    assert (reaped.event, reaped.domid, reaped.name, reaped.incarnation) == ("reaped", guest, "guest", 1)
    assert reaped.detail == "suspected 8.000000 ms, fenced 7.000000 ms, reaped 4.000000 ms before"
    assert broker[2:6] == ("reaped", -1, "broker", 0)
    assert broker.at_ns == reaped.at_ns == died_at_ns + 9_000_000
    assert broker.number == reaped.number + 1


def test_a_descriptor_counts_as_sent_once_and_the_same_in_the_replay(ledger, guest, session):
    ledger.call(guest, session, 1, ALLOC)
    ledger.call(guest, session, 2, m.EvtchnBindVirq(0), descriptors=3)
    queue = ledger.state.hypervisor.upcalls[guest]
    ledger.call(guest, session, 2, m.EvtchnBindVirq(0), descriptors=3)
    assert (queue.descriptors_sent, queue.descriptors_received) == (5, 3)
    ledger.broker_dies()
    queue = ledger.state.hypervisor.upcalls[guest]
    assert (queue.descriptors_sent, queue.descriptors_received) == (5, 3)


def test_a_toolstack_program_acknowledges_nothing_for_domain_0(ledger, board):
    board.h.upcalls[DOM0].add("/x", "t")
    ledger.call(DOM0, TOOLSTACK, 1, m.ConsoleIo("x"), events=1000, descriptors=1000)
    assert board.h.upcalls[DOM0].unsent


def test_watch_events_of_a_journaled_call_are_there_again_after_the_replay(ledger, guest, session):
    ledger.call(guest, session, 1, m.StoreWatch("data", "token"))
    ledger.call(guest, session, 2, m.StoreWrite(0, "data/x", b"1"), events=1)
    ledger.broker_dies()
    queue = ledger.state.hypervisor.upcalls[guest]
    assert [(number, path) for (path, _), number in queue.unsent.items()] == [(2, "data/x")]


def test_a_command_that_is_none_is_our_mistake(ledger):
    with pytest.raises(ValueError, match="no such command"):
        ledger.state.apply(["reboot the moon"])


def test_a_multicall_that_was_preempted_is_in_a_replay_too_and_ends_at_the_same_call(ledger, guest, session, board):
    for number in range(100):
        ledger.call(guest, session, 5 + number, m.StoreWatch("data", f"t{number}"))
    writes = m.Multicall([pack_call(m.StoreWrite(0, f"data/w{n}", b"1")) for n in range(16)])
    first = ledger.call(guest, session, 200, writes)
    there = sorted(board.h.store.directory(guest, 0, "data"))
    assert there == ["w0", "w1", "w2", "w3"]
    ledger.broker_dies()
    assert sorted(board.h.store.directory(guest, 0, "data")) == there
    assert ledger.call(guest, session, 200, writes) == first


# ---- poison ----------------------------------------------------------------------------------------------------------


def test_a_hypercall_that_brokers_crash_over_is_refused_and_takes_its_sender_down(ledger, board, guest, session):
    for _ in range(CRASHES_MAX - 1):
        ledger.apply("found open", 0, session, 7, True)
        assert ledger.state.repeated(session, 7) is None
        ledger.broker_dies()
    ledger.apply("found open", 0, session, 7, True)
    assert board.hardware.calls[-1][0] == "signal_domain"
    ledger.broker_dies()
    reply = ledger.state.repeated(session, 7)
    assert reply is not None
    assert (reply.errno, reply.sequence) == (errno.EIO, 7)
    domain = ledger.state.hypervisor.domains[guest]
    assert domain.life is Life.DYING
    board.dies(guest)
    assert domain.last_death == "crash: hypercall 7 was found open by 2 brokers in a row"


def test_other_callers_in_between_do_not_clear_a_suspect(ledger, guest, session):
    ledger.apply("found open", 0, session, 7, True)
    ledger.broker_dies()
    ledger.call(DOM0, TOOLSTACK, 1, m.ConsoleIo("x"))
    ledger.apply("found open", 0, TOOLSTACK, 2, True)
    ledger.apply("found open", 0, session, 7, True)
    assert ledger.state.repeated(session, 7) is not None
    assert ledger.state.repeated(TOOLSTACK, 2) is None


def test_brokers_killed_from_outside_do_not_condemn_a_hypercall_soon(ledger, guest, session):
    for _ in range(FOUND_OPEN_MAX - 1):
        ledger.apply("found open", 0, session, 7, False)
        ledger.broker_dies()
    assert ledger.state.hypervisor.domains[guest].life is Life.RUNNING
    ledger.apply("found open", 0, session, 7, False)
    assert ledger.state.hypervisor.domains[guest].life is Life.DYING


def test_a_hypercall_that_was_journaled_is_no_suspect(ledger, guest, session):
    ledger.call(guest, session, 7, ALLOC)
    for _ in range(CRASHES_MAX):
        ledger.apply("found open", 0, session, 7, True)
    assert ledger.state.hypervisor.domains[guest].life is Life.RUNNING
    assert ledger.state.sessions.suspects == {}


def test_one_crash_each_over_two_hypercalls_is_not_two_over_one(ledger, guest, session):
    ledger.apply("found open", 0, session, 7, True)
    ledger.apply("found open", 0, session, 8, True)
    assert ledger.state.hypervisor.domains[guest].life is Life.RUNNING


def test_a_toolstack_programs_poison_is_refused_and_harms_nobody(ledger):
    for _ in range(CRASHES_MAX):
        ledger.apply("found open", 0, TOOLSTACK, 7, True)
    reply = ledger.state.repeated(TOOLSTACK, 7)
    assert reply is not None
    assert reply.errno == errno.EIO
    assert all(domain.life is Life.RUNNING for domain in ledger.state.hypervisor.domains.values())


# ---- XenStore by socket and ring -------------------------------------------------------------------------------------


def store_calls(ledger, board, guest):
    """Requests of a guest's socket and of the host's, of each kind that leaves something behind."""
    for domid, connection, kind, tx, payload in (
        (guest, 2, Type.WATCH, 0, b"data\0token\0"),
        (guest, 2, Type.WRITE, 0, b"data/a\0one"),
        (guest, 2, Type.TRANSACTION_START, 0, b"\0"),
        (guest, 2, Type.READ, 1, b"data/a\0"),
        (guest, 2, Type.WRITE, 1, b"data/b\0two"),
        (0, -3, Type.WRITE, 0, b"/local/domain/%d/data/c\0three" % guest),
        (guest, 2, Type.TRANSACTION_END, 1, b"T\0"),
        (0, -3, Type.CONTROL, 0, b"quota\0set\0nodes\x00500\0"),
        (0, -3, Type.CONTROL, 0, b"print\0noted\0"),
        (guest, 2, Type.RM, 0, b"data/a\0"),
        (0, -3, Type.TRANSACTION_START, 0, b"\0"),
    ):
        ledger.apply("store call", board.now, domid, connection, int(kind), tx, payload)


def test_what_came_by_socket_is_there_again_after_the_replay(ledger, board, guest):
    store_calls(ledger, board, guest)
    live = board.h.store.statistics()
    ledger.broker_dies()
    assert board.h.store.statistics() == live and not board.h.store.check()
    store, home = board.h.store, f"/local/domain/{guest}/data"
    assert store.directory(DOM0, 0, home) == ["c", "b"] and store.read(DOM0, 0, f"{home}/b") == b"two"
    assert store.unprivileged_limits.nodes_max == 500
    assert "(XEN) xenstore: noted" in board.h.console


def test_connections_that_their_broker_has_taken_with_it_leave_no_watch_and_no_transaction(ledger, board, guest):
    store_calls(ledger, board, guest)
    ledger.apply("store closed", board.now, guest, 2)
    assert (board.h.store.usage(guest).watches, board.h.store.usage(DOM0).transactions) == (0, 1)
    ledger.apply("store lost", board.now)
    assert board.h.store.usage(DOM0).transactions == 0
    ledger.broker_dies()
    assert board.h.store.usage(DOM0).transactions == 0


def test_a_removal_that_is_under_way_goes_on_in_the_replay(ledger, board, guest):
    for number in range(300):
        ledger.apply("store call", board.now, guest, 2, int(Type.MKDIR), 0, b"data/many/%d\0" % number)
    ledger.apply("store call", board.now, guest, 2, int(Type.WATCH), 0, b"data/many\0token\0")
    ledger.apply("store call", board.now, guest, 2, int(Type.RM), 0, b"data/many\0")
    ledger.apply("store settle", board.now)
    assert board.h.store.is_settling(guest)
    ledger.broker_dies()
    while board.h.store.has_unsettled:
        ledger.apply("store settle", board.now)
    assert not board.h.store.check()


def test_a_ring_is_made_at_the_first_asking_and_is_the_same_after_the_replay(ledger, board, guest, session):
    first = ledger.call(guest, session, 1, m.StoreRing())
    assert first.value["ref"] == 1 and len(first.descriptors) == 4
    place = board.h.store_ring_of(board.h.domains[guest])
    assert ("attach_store_ring", guest, *place) in board.hardware.calls
    ledger.broker_dies()
    assert board.h.store_ring_of(board.h.domains[guest]) == place
    assert ledger.call(guest, session, 2, m.StoreRing()).value == first.value
    ledger.call(guest, session, 3, m.EvtchnClose(first.value["port"]))
    assert board.h.store_ring_of(board.h.domains[guest]) is None
    again = ledger.call(guest, session, 4, m.StoreRing())
    assert board.h.store_ring_of(board.h.domains[guest])[0] == place[0] and again.errno == 0


def test_a_store_request_that_brokers_crash_over_takes_its_domain_down(ledger, board, guest):
    session = store_session(guest, board.h.domains[guest].incarnation)
    for _ in range(CRASHES_MAX):
        ledger.apply("found open", board.now, session, 0xABC, True)
        ledger.broker_dies()
    assert board.h.domains[guest].life is Life.DYING
    board.dies(guest)
    assert board.h.domains[guest].last_death == "crash: XenStore request 0xabc was found open by 2 brokers in a row"


@pytest.mark.parametrize("dies", [False, True])
def test_media_opened_in_a_multicall_are_those_whatever_the_host_refuses_and_no_others_behind_a_replay(board, dies):
    """What it refuses is part of the record, call by call."""
    storage = board.boot("storage", driver_domain=True)
    disks = [DeviceConfig("vbd", devid, "storage", {"params": f"/{devid}.img"}) for devid in (1, 2, 3)]
    client = board.boot("client", devices=disks)
    ledger, session = Ledger(board), domain_session(storage, board.h.domains[storage].incarnation)
    board.hardware.busy.add("/2.img")
    calls = [m.PhysdevOpenMedium(client, "vbd", devid) for devid in (1, 2, 3, 2, 1)]
    multicall = m.Multicall([pack_call(call) for call in calls])
    first = ledger.call(storage, session, 5, multicall)
    assert first.value == [[0, None, 1], [errno.EBUSY, ANY, 0], [0, None, 1], [errno.EBUSY, ANY, 0], [0, None, 1]]
    assert first.descriptors == (("medium:1", 0), ("medium:2", 0), ("medium:3", 0))
    opened = dict(ledger.state.hypervisor.media.opened)
    if dies:
        ledger.broker_dies()
    assert ledger.call(storage, session, 5, multicall) == first
    assert ledger.state.hypervisor.media.opened == opened
    assert sorted(opened.values()) == [2, 3]
