"""Endpoints in the run directory: one for each living incarnation, and none left of the dead."""

import os
import socket

import pytest
import zmq

from hvd.broker.endpoints import CONNECTIONS_MAX, Endpoints
from hvd.broker.poller import Poller
from hvd.transport import messages as m
from hvd.transport.codec import pack_request
from hvd.transport.hypercalls import public_key, socket_address
from hvd.transport.ids import DomId, Incarnation

DOM = DomId(5)
SECRETS = {1: b"a" * 32, 2: b"b" * 32}


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
def endpoints(tmp_path, poller, ready, floods):
    context = zmq.Context()
    made = Endpoints(context, str(tmp_path), poller, ready.append, floods.append)
    yield made
    context.destroy(linger=0)
    os.close(made.directory)


def open_new(endpoints, incarnation, secret):
    endpoints.prepare(DOM, incarnation, secret)
    endpoints.open(DOM, secret)


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


def test_a_new_broker_binds_over_what_a_dead_one_left(tmp_path, endpoints, poller):
    open_new(endpoints, Incarnation(1), SECRETS[1])
    with zmq.Context() as context:
        successor = Endpoints(context, str(tmp_path), poller, lambda domid: None, lambda domid: None)
        open_new(successor, Incarnation(1), SECRETS[1])
        assert files(tmp_path) == ["control", "domains/5.1/hypercall"]
        successor.close(DOM)
        successor.control.close()
        os.close(successor.directory)


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


def test_who_connects_without_end_has_no_endpoint_any_more(tmp_path, endpoints, poller, floods):
    """Threat 29: libzmq aborts when descriptors run out, and accepts without asking anybody."""
    open_new(endpoints, Incarnation(1), SECRETS[1])
    path = f"/proc/self/fd/{endpoints.directory}/domains/5.1/hypercall"  # a socket's path is short
    kept = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS_MAX + 1)]
    for connection in kept[:-1]:
        connection.connect(path)
    for _ in range(20):
        poller.poll(0.01)
    assert (floods, endpoints.server(DOM) is None) == ([], False)
    kept[-1].connect(path)
    while not floods:
        poller.poll(5)
    assert (floods, endpoints.server(DOM)) == ([DOM], None)
    kept[0].settimeout(5)
    while kept[0].recv(1024):
        pass  # its greeting, and then the end: nothing of them is left
    for connection in kept:
        connection.close()


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
