"""Endpoints in the run directory: one for each living incarnation, and none left of the dead."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq

from hvd.broker import endpoints as endpoints_module
from hvd.broker.connections import Connections
from hvd.broker.endpoints import (
    CONNECTIONS_AT_ONCE_MAX,
    CONNECTIONS_MAX,
    RETIRED_MAX,
    RETIRED_NS,
    SCREENS_MAX,
    Endpoints,
)
from hvd.broker.held import HeldDescriptors, connection_key
from hvd.broker.hoards import HOARD_BYTES, bytes_in_other_arenas, is_hoard
from hvd.broker.poller import Poller
from hvd.transport import messages as m
from hvd.transport.codec import pack_request
from hvd.transport.descriptors import receive_message
from hvd.transport.hypercalls import public_key, socket_address
from hvd.transport.ids import DomId, Incarnation
from tests.waiting import wait_for

DOM, OTHER = DomId(5), DomId(6)
DEADLINE_S = 60.0
SECRETS = {1: b"a" * 32, 2: b"b" * 32}


@pytest.fixture(autouse=True)
def _however_long_it_takes(monkeypatch):
    """libzmq's threads may stand still before they let go of what was closed."""
    monkeypatch.setattr(endpoints_module, "LET_GO_S", DEADLINE_S)


@pytest.fixture
def ready():
    return []


@pytest.fixture
def floods():
    return []


@pytest.fixture
def poller():
    return Poller()


@pytest.fixture
def links():
    """To the machine, and the machine's."""
    made = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield made
    for each in made:
        each.close()


@pytest.fixture
def held(links):
    made = HeldDescriptors(links[0], {})
    yield made
    for key in list(made.by_key):
        made.drop(key)
    made.settle()


def hold_nothing(link):
    """Be a machine that keeps nothing of what it is told to keep."""
    link.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while (received := receive_message(link)) is not None:
            for descriptor in received[1]:
                os.close(descriptor)


@pytest.fixture
def endpoints(tmp_path, poller, held, ready, floods):
    context = zmq.Context()
    made = Endpoints(
        context, str(tmp_path), poller, Connections(held),
        on_ready=ready.append, on_flood=lambda *flood: floods.append(flood),
    )  # fmt: skip
    yield made
    context.destroy(linger=0)
    os.close(made.directory)


def open_new(endpoints, incarnation, secret):
    endpoints.prepare(DOM, incarnation, secret)
    endpoints.open(DOM)


def files(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_socket())


def test_an_endpoint_is_named_after_domid_and_incarnation_and_goes_with_it(tmp_path, endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    assert files(tmp_path) == ["control", "domains/5.1/hypercall"]
    assert endpoints.public_key(DOM) == public_key(SECRETS[1])
    endpoints.close(DOM)
    endpoints.close(DOM)
    assert files(tmp_path) == ["control"]
    assert endpoints.server(DOM) is None


def test_what_an_incarnation_is_told_of_its_endpoint_is_there_before_the_endpoint_is(tmp_path, endpoints):
    endpoints.prepare(DOM, Incarnation(1), SECRETS[1])
    assert (tmp_path / endpoints.name(DOM, Incarnation(1))).is_dir()
    assert endpoints.public_key(DOM) == public_key(SECRETS[1])
    assert (files(tmp_path), endpoints.server(DOM)) == (["control"], None)


def test_the_next_incarnations_endpoint_takes_the_old_ones_place(tmp_path, endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    open_new(endpoints, Incarnation(2), SECRETS[2])
    assert files(tmp_path) == ["control", "domains/5.2/hypercall"]
    assert endpoints.public_key(DOM) == public_key(SECRETS[2])


def test_what_has_been_closed_costs_no_descriptor_behind_the_next_look(endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    endpoints.close(DOM)

    def descriptors():
        endpoints.hoarder()
        return len(list(Path("/proc/self/fd").iterdir()))

    wait_for(lambda: endpoints.hoarder() is None and not endpoints._closing)
    before = descriptors()
    for _ in range(5):
        open_new(endpoints, Incarnation(1), SECRETS[1])
        endpoints.close(DOM)
    wait_for(lambda: descriptors() <= before, lambda: f"{descriptors()} descriptors to be {before} again")


def test_a_new_broker_binds_over_what_a_dead_one_left(tmp_path, endpoints, poller, held):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    unseen = endpoints._bind_unseen(endpoints._domains[DOM])
    assert len(files(tmp_path)) == 3
    with zmq.Context() as context:
        successor = Endpoints(
            context, str(tmp_path), poller, Connections(held),
            on_ready=lambda domid: None, on_flood=lambda domid, by_spare: None,
        )  # fmt: skip
        open_new(successor, Incarnation(1), SECRETS[1])
        assert files(tmp_path) == ["control", "domains/5.1/hypercall"]
        successor.close(DOM)
        assert successor.let_go()
        successor.control.close()
        os.close(successor.directory)
    unseen.close()


def test_what_was_made_for_the_next_domid_is_its_endpoint_and_heard_from_then_on(tmp_path, endpoints):
    endpoints.make_ready(DOM, Incarnation(1), SECRETS[1])
    endpoints.make_ready(DOM, Incarnation(1), SECRETS[1])
    assert (files(tmp_path), endpoints.server(DOM)) == (["control", "domains/5.1/hypercall"], None)
    open_new(endpoints, Incarnation(1), SECRETS[1])
    assert endpoints.public_key(DOM) == public_key(SECRETS[1])
    assert endpoints.server(DOM) is not None
    endpoints.close(DOM)
    assert files(tmp_path) == ["control"]


def test_what_was_made_for_another_domid_is_not_taken_and_goes_when_there_is_a_next(tmp_path, endpoints):
    endpoints.make_ready(DomId(4), Incarnation(1), SECRETS[2])
    open_new(endpoints, Incarnation(1), SECRETS[1])
    assert endpoints.public_key(DOM) == public_key(SECRETS[1])
    endpoints.make_ready(DomId(6), Incarnation(1), SECRETS[2])
    assert files(tmp_path) == ["control", "domains/5.1/hypercall", "domains/6.1/hypercall"]


def test_a_request_tells_whose_endpoint_it_came_to(endpoints, poller, ready):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    with zmq.Context() as context:
        for name, key, expected in (("control", None, None), ("domains/5.1/hypercall", public_key(SECRETS[1]), DOM)):
            socket = context.socket(zmq.DEALER)
            socket.linger = 0
            if key is not None:
                socket.curve_serverkey = key
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.connect(socket_address(endpoints.directory, name))
            socket.send(pack_request(m.XenVersion(), 1, 0, 0))
            server, received = endpoints.server(expected), None
            while received is None:
                poller.poll(60)
                assert server is not None
                received = server.receive()
            assert expected in ready
            socket.close(0)


def test_a_run_directory_that_lost_its_parts_is_the_hosts_refusal(tmp_path, endpoints):
    (tmp_path / "domains").rmdir()
    with pytest.raises(OSError, match="No such file"):
        open_new(endpoints, Incarnation(1), SECRETS[1])
    assert endpoints.server(DOM) is None


def connected(endpoints, count, name="domains/5.1/hypercall"):
    """So many clients that say nothing."""
    path = f"/proc/self/fd/{endpoints.directory}/{name}"  # a socket's path is short
    kept = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for connection in kept:
        connection.settimeout(DEADLINE_S)
        connection.connect(path)
    return kept


def ends(connection):
    """Wait until the other end has closed it."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1024):
            pass
    connection.close()


def count_until(poller, place, accepted, ended):
    while (place.connections, place.ended) != (accepted, ended):
        poller.poll(5)


def test_who_connects_without_end_has_no_endpoint_any_more(endpoints, poller, floods):
    """Threat 29: libzmq aborts when descriptors run out, and accepts without asking anybody."""
    open_new(endpoints, Incarnation(1), SECRETS[1])
    place = endpoints._domains[DOM]
    for number in range(CONNECTIONS_MAX):
        connected(endpoints, 1)[0].close()
        count_until(poller, place, number + 1, number + 1)
    assert (floods, endpoints.server(DOM) is None) == ([], False)
    connected(endpoints, 1)[0].close()
    while not floods:
        poller.poll(5)
    assert (floods, endpoints.server(DOM)) == ([(DOM, False)], None)


def test_what_is_made_for_the_next_is_not_flooded_either_and_nobody_is_to_blame(
    tmp_path, endpoints, poller, links, floods
):
    """Who can reach it lacks a root of his own; the domain that it is for is not born yet."""
    endpoints.make_ready(DOM, Incarnation(1), SECRETS[1])
    kept = connected(endpoints, CONNECTIONS_AT_ONCE_MAX + 1)
    while endpoints._ready is not None:
        poller.poll(5)
    assert (files(tmp_path), floods) == (["control"], [])
    hold_nothing(links[1])
    for connection in kept:
        ends(connection)
    open_new(endpoints, Incarnation(1), SECRETS[1])
    assert endpoints.server(DOM) is not None


def test_who_is_connected_more_often_at_once_than_it_may_be_has_no_endpoint_any_more(endpoints, poller, links, floods):
    """In each connection there may be replies that are not read."""
    open_new(endpoints, Incarnation(1), SECRETS[1])
    kept = connected(endpoints, CONNECTIONS_AT_ONCE_MAX)
    count_until(poller, endpoints._domains[DOM], CONNECTIONS_AT_ONCE_MAX, 0)
    assert (floods, endpoints.server(DOM) is None) == ([], False)
    kept += connected(endpoints, 1)
    while not floods:
        poller.poll(5)
    assert (floods, endpoints.server(DOM)) == ([(DOM, False)], None)
    hold_nothing(links[1])
    for connection in kept:
        ends(connection)


def is_kept(held):
    return connection_key("domains/5.1") in held.by_key


def test_the_newest_connection_is_kept_until_it_has_ended(endpoints, poller, held):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    place = endpoints._domains[DOM]
    older, newer = connected(endpoints, 2)
    count_until(poller, place, 2, 0)
    assert is_kept(held)
    older.close()
    count_until(poller, place, 2, 1)
    assert is_kept(held)
    newer.close()
    count_until(poller, place, 2, 2)
    assert not is_kept(held)


def test_a_connection_that_is_kept_ends_when_libzmq_has_ended_it(endpoints, poller, held):
    """What is no ZMTP at all: whoever said it would wait for ever."""
    open_new(endpoints, Incarnation(1), SECRETS[1])
    (one,) = connected(endpoints, 1)
    count_until(poller, endpoints._domains[DOM], 1, 0)
    assert is_kept(held)
    one.sendall(b"\xff" + bytes(8) + b"\x7f" + b"x" * 64)
    count_until(poller, endpoints._domains[DOM], 1, 1)
    assert not is_kept(held)
    ends(one)


def test_a_connection_that_is_kept_ends_with_its_endpoint(endpoints, poller, held):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    (one,) = connected(endpoints, 1)
    count_until(poller, endpoints._domains[DOM], 1, 0)
    endpoints.close(DOM)
    assert not is_kept(held)
    ends(one)


@contextlib.contextmanager
def client(endpoints, name, secret):
    with zmq.Context() as context:
        socket = context.socket(zmq.DEALER)
        socket.linger = socket.sndhwm = 0
        socket.curve_serverkey = public_key(secret)
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.connect(socket_address(endpoints.directory, name))
        yield socket
        socket.close(0)


HOARDER = """
import sys, zmq
endless = zmq.Context().socket(zmq.DEALER)
endless.sndhwm = 0
endless.curve_serverkey = sys.argv[2].encode()
endless.curve_publickey, endless.curve_secretkey = zmq.curve_keypair()
endless.connect("ipc://" + sys.argv[1])
part = b"x" * 66_000
for _ in range(20_000):
    endless.send(part, zmq.SNDMORE, copy=False)
endless.send(b"the last")
sys.stdin.read()
"""
"""A process of its own: libzmq aborts who is disconnected, and closes, in the midst of a message in parts."""


@contextlib.contextmanager
def hoarding(tmp_path, name, secret, domains=2):
    """Somebody who sends a message in parts that is not whole before its sender is looked for."""
    command = [sys.executable, "-c", HOARDER, name, public_key(secret).decode()]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as hoarder:
        try:
            while not is_hoard(bytes_in_other_arenas(), domains):
                assert hoarder.poll() is None
                time.sleep(0.001)
            yield hoarder
        finally:
            hoarder.kill()
    until = time.monotonic() + DEADLINE_S
    while is_hoard(bytes_in_other_arenas(), domains):  # or what it has left would be taken for the next one's
        assert time.monotonic() < until
        time.sleep(0.001)


def hoard(endpoints, tmp_path, name, secret):
    with hoarding(tmp_path, name, secret):
        return endpoints.hoarder()


def open_two(endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    endpoints.prepare(OTHER, Incarnation(1), SECRETS[2])
    endpoints.open(OTHER)


def test_whose_message_has_no_end_is_found_the_second_time_and_others_go_on(tmp_path, endpoints, poller):
    """libzmq keeps all parts of a message until the last has come: one of 2 GB, and the broker had as much."""
    open_two(endpoints)
    before = bytes_in_other_arenas()
    with client(endpoints, "domains/6.1/hypercall", SECRETS[2]) as innocent:
        found = [hoard(endpoints, tmp_path, "domains/5.1/hypercall", SECRETS[1]) for _ in range(2)]
        assert found == [None, (DOM, False)]
        assert bytes_in_other_arenas() < before + HOARD_BYTES
        innocent.send(b"a request")
        while (received := endpoints.server(OTHER).receive()) is None:
            poller.poll(5)
    assert received[1] == b"a request"


def test_who_lets_go_of_a_hoard_as_anothers_endpoint_is_closed_is_found_and_the_other_never(
    tmp_path, endpoints, monkeypatch
):
    """It cannot see whose endpoint is closed, but that it is not heard for a moment; here it meets that each time."""
    open_two(endpoints)
    begin_end = endpoints._begin_end

    def begin_end_as_it_lets_go(place):
        if place.domid == DOM:
            framing.kill()
            wait_for(lambda: not is_hoard(bytes_in_other_arenas(), 2), "the hoard to be let go of")
            assert endpoints.server(OTHER) is not None, "the other's is closed behind it"
        return begin_end(place)

    monkeypatch.setattr(endpoints, "_begin_end", begin_end_as_it_lets_go)
    found = []
    for _ in range(SCREENS_MAX):
        with hoarding(tmp_path, "domains/6.1/hypercall", SECRETS[2]) as framing:
            found.append(endpoints.hoarder())
            assert framing.wait(DEADLINE_S) < 0, "it let go as the other's was closed"
    assert found == [None] * (SCREENS_MAX - 1) + [(OTHER, False)]


def test_however_many_there_are_the_hoarder_is_found_and_nobody_else(tmp_path, endpoints):
    for number in range(1, 10):
        endpoints.prepare(DomId(number), Incarnation(1), SECRETS[1])
        endpoints.open(DomId(number))
    found: list[tuple[DomId, bool] | None] = [None]
    while found[-1] is None and len(found) < 8:
        with hoarding(tmp_path, "domains/7.1/hypercall", SECRETS[1], 9):
            found.append(endpoints.hoarder())
    assert (found[-1], len(found) <= 6) == ((DomId(7), False), True)


def test_a_spare_that_hoards_is_found_among_the_domains(tmp_path, endpoints, poller):
    """It runs its kernel's code while it stands by. One that was looked for nowhere grew without a bound."""
    open_two(endpoints)
    endpoints.open_spare(DOM, Incarnation(2), SECRETS[1])
    found: list[tuple[DomId, bool] | None] = [None]
    while found[-1] is None and len(found) < 5:
        with hoarding(tmp_path, "domains/5.2/hypercall", SECRETS[1], 3):
            found.append(endpoints.hoarder())
    assert found[-1] == (DOM, True)
    with client(endpoints, "domains/5.2/hypercall", SECRETS[1]) as standby:
        standby.send(b"its first call")
        endpoints.promote(DOM)
        while (received := endpoints.server(DOM).receive()) is None:
            poller.poll(5)
    assert received[1] == b"its first call"


def test_who_screens_another_domains_hoards_is_found_himself(tmp_path, endpoints, poller, monkeypatch):
    """It sees its connection end, and tells somebody whose own ends then: the hoard was taken for theirs each time."""
    open_two(endpoints)
    begin_end = endpoints._begin_end

    def begin_end_screened(place):
        if place.domid == DOM:
            while screens:
                screens.pop().close()
                select.select([endpoints.server(OTHER).connections_fileno()], [], [])
        return begin_end(place)

    monkeypatch.setattr(endpoints, "_begin_end", begin_end_screened)
    found: list[tuple[DomId, bool] | None] = []
    while not any(found) and len(found) < 9:
        screens = connected(endpoints, 1, "domains/6.1/hypercall")
        while endpoints._domains[OTHER].connections == endpoints._domains[OTHER].ended:
            poller.poll(5)
        with hoarding(tmp_path, "domains/5.1/hypercall", SECRETS[1]):
            found.append(endpoints.hoarder())
    assert (found[-1], len(found)) == ((OTHER, False), SCREENS_MAX)


def test_of_several_who_hoard_at_once_each_is_found_and_nobody_innocent(tmp_path, endpoints):
    """What one kept as another was looked at hid what that one had let go of: five were searched for for minutes."""
    for number in range(1, 8):
        endpoints.prepare(DomId(number), Incarnation(1), SECRETS[1])
        endpoints.open(DomId(number))
    left, looks = [DomId(number) for number in (7, 1, 4)], 0
    while left:
        assert looks < 9, left
        with contextlib.ExitStack() as stack:
            for domid in left:
                stack.enter_context(hoarding(tmp_path, f"domains/{domid}.1/hypercall", SECRETS[1], 7))
            found, looks = endpoints.hoarder(), looks + 1
        if found is not None:
            left.remove(found[0])
            endpoints.close(found[0])


def test_a_hoard_that_goes_with_nobodys_endpoint_makes_nobody_suspected(tmp_path, endpoints):
    """Halved without evidence, they were one innocent domain soon, and the hoard went when that was bound anew."""
    open_two(endpoints)
    endpoints.make_ready(DomId(7), Incarnation(1), SECRETS[1])
    with hoarding(tmp_path, "domains/7.1/hypercall", SECRETS[1]):
        assert [endpoints.hoarder() for _ in range(4)] == [None] * 4


def test_a_look_beats_with_each_turn(tmp_path, endpoints, monkeypatch):
    """Of 400 endpoints beside load it took 4 s; who does not beat for 5 is killed."""
    beats: list[bool] = []
    monkeypatch.setattr(endpoints, "_beat", lambda: beats.append(True))
    open_two(endpoints)
    assert (hoard(endpoints, tmp_path, "domains/5.1/hypercall", SECRETS[1]), len(beats)) == (None, 2)


def test_a_hoard_of_one_whose_endpoint_is_retired_goes_first_and_is_nobody_elses(tmp_path, endpoints):
    """A domain that has ended lets go of it at any moment, and whoever is closed in that moment would have had it."""
    open_two(endpoints)
    with hoarding(tmp_path, "domains/6.1/hypercall", SECRETS[2]):
        endpoints.retire(OTHER)
        assert endpoints.hoarder() is None
        assert (endpoints.retired, is_hoard(bytes_in_other_arenas(), 1)) == (0, False)
    assert endpoints._domains[DOM].hoard_bytes == 0


def test_while_a_closed_endpoint_is_not_let_go_of_nobody_is_found(tmp_path, endpoints, monkeypatch):
    """What it had kept may go as the next one is closed, and would be taken for that one's."""
    open_two(endpoints)
    server = endpoints.server(OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(server, "has_closed", lambda timeout_ms: False)
        endpoints.close(OTHER)
        assert [hoard(endpoints, tmp_path, "domains/5.1/hypercall", SECRETS[1]) for _ in range(3)] == [None] * 3
    assert hoard(endpoints, tmp_path, "domains/5.1/hypercall", SECRETS[1]) == (DOM, False)


def test_who_connects_too_often_while_another_is_looked_for_has_no_endpoint_and_the_look_goes_on(
    tmp_path, endpoints, links, floods
):
    """Its endpoint was closed a second time: a broker died of it, and the next one could too."""
    open_two(endpoints)
    with hoarding(tmp_path, "domains/5.1/hypercall", SECRETS[1]):
        kept = connected(endpoints, CONNECTIONS_AT_ONCE_MAX + 1, "domains/6.1/hypercall")
        for connection in kept:
            connection.recv(1)  # it has been accepted, and nobody has counted it yet
        assert endpoints.hoarder() is None
    assert (floods, endpoints.server(OTHER)) == ([(OTHER, False)], None)
    assert hoard(endpoints, tmp_path, "domains/5.1/hypercall", SECRETS[1]) == (DOM, False)
    hold_nothing(links[1])
    for connection in kept:
        ends(connection)


def test_an_endpoint_that_cannot_be_bound_anew_stays_as_it_is(tmp_path, endpoints, monkeypatch):
    """An innocent domain is not left without one because the host has no socket at that moment."""
    open_new(endpoints, Incarnation(1), SECRETS[1])
    server = endpoints.server(DOM)
    monkeypatch.setattr(endpoints, "_bind_unseen", no_socket)
    with hoarding(tmp_path, "domains/5.1/hypercall", SECRETS[1], 1):
        assert (endpoints.hoarder(), endpoints.server(DOM)) == (None, server)


def no_socket(*_: object):
    raise OSError("no socket")


def test_where_nobody_hoards_no_endpoint_is_bound_anew(endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    server = endpoints.server(DOM)
    assert (endpoints.hoarder(), endpoints.server(DOM)) == (None, server)


def test_endpoints_follow_each_other_as_fast_as_can_be(endpoints):
    for number in range(1, 200):
        open_new(endpoints, Incarnation(number), SECRETS[1])
    assert endpoints.server(DOM) is not None


# ---- spares ----------------------------------------------------------------------------------------------------------


def test_a_spares_endpoint_is_beside_its_domains_and_is_heard_when_it_is_promoted(tmp_path, endpoints, poller, ready):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    endpoints.open_spare(DOM, Incarnation(2), SECRETS[2])
    assert files(tmp_path) == ["control", "domains/5.1/hypercall", "domains/5.2/hypercall"]
    assert (endpoints.public_key(DOM), endpoints.spare_key(DOM)) == (public_key(SECRETS[1]), public_key(SECRETS[2]))
    old = endpoints.server(DOM)
    endpoints.promote(DOM)
    assert endpoints.server(DOM) is not old
    assert (endpoints.public_key(DOM), ready) == (public_key(SECRETS[2]), [DOM])
    assert files(tmp_path) == ["control", "domains/5.2/hypercall"]


def test_a_spare_that_connects_without_end_is_heard_nowhere_and_can_be_promoted_all_the_same(
    endpoints, poller, links, floods
):
    """It may be the domain before it has ended: a broker that knew of no endpoint died of it, and the next one too."""
    open_new(endpoints, Incarnation(2), SECRETS[2])
    endpoints.open_spare(DOM, Incarnation(1), SECRETS[1])
    kept = connected(endpoints, CONNECTIONS_AT_ONCE_MAX + 1)
    while not floods:
        poller.poll(5)
    assert (floods, endpoints.server(DOM) is None) == ([(DOM, True)], False)
    endpoints.promote(DOM)
    assert endpoints.server(DOM) is None
    endpoints.close(DOM)
    hold_nothing(links[1])
    for connection in kept:
        ends(connection)


def test_a_spares_endpoint_goes_without_its_domains(tmp_path, endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    endpoints.open_spare(DOM, Incarnation(2), SECRETS[2])
    endpoints.close_spare(DOM)
    endpoints.close_spare(DOM)
    assert files(tmp_path) == ["control", "domains/5.1/hypercall"]
    assert endpoints.server(DOM) is not None


def test_a_retired_endpoint_is_nobodys_and_is_closed_when_there_is_time(tmp_path, endpoints):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    endpoints.retire(DOM)
    endpoints.retire(DOM)
    assert (endpoints.server(DOM), endpoints.retired) == (None, 1)
    open_new(endpoints, Incarnation(2), SECRETS[2])
    endpoints.close_retired()
    assert (files(tmp_path), endpoints.retired) == (["control", "domains/5.2/hypercall"], 0)


def test_retired_endpoints_are_overdue_when_the_first_has_waited_for_long(endpoints, monkeypatch):
    now = time.monotonic_ns()
    monkeypatch.setattr(endpoints_module, "time", SimpleNamespace(monotonic_ns=lambda: now))
    for _ in range(2):
        for domid in (DOM, OTHER):
            endpoints.prepare(domid, Incarnation(1), SECRETS[1])
            endpoints.retire(domid)
            assert not endpoints.retired_is_overdue
            now += RETIRED_NS // 2 + 1
        assert endpoints.retired_is_overdue
        endpoints.close_retired()


def test_retired_endpoints_are_overdue_when_they_are_many(endpoints, monkeypatch):
    monkeypatch.setattr(endpoints_module, "time", SimpleNamespace(monotonic_ns=lambda: 1))
    for number in range(RETIRED_MAX):
        assert not endpoints.retired or not endpoints.retired_is_overdue
        endpoints.prepare(DomId(10 + number), Incarnation(1), SECRETS[1])
        endpoints.retire(DomId(10 + number))
    assert endpoints.retired_is_overdue
