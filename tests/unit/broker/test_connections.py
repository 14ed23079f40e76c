"""Connections that are kept open behind libzmq's back: over their server's end, and until they are told to end."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from hvd.broker.connections import Connections
from hvd.broker.held import HeldDescriptors, connection_key
from hvd.transport.descriptors import receive_message

NAME = "domains/5.1"


class Accepted:
    """A connection to a listening socket: what the domain has, and what libzmq has accepted."""

    def __init__(self, path):
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self.domain = socket.socket(socket.AF_UNIX)
        self.domain.connect(self.path)
        self.libzmqs, _ = self._listener.accept()
        self.domain.setblocking(False)

    @property
    def has_ended(self):
        try:
            return self.domain.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self):
        for each in (self._listener, self.domain, self.libzmqs):
            each.close()


@pytest.fixture
def link():
    ours, machines = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, machines
    ours.close()
    machines.close()


@pytest.fixture
def held(link):
    made = HeldDescriptors(link[0], {})
    yield made
    for key in list(made.by_key):
        made.drop(key)
    made.settle()


@pytest.fixture
def accepted(tmp_path):
    made = Accepted(tmp_path / "one")
    yield made
    made.close()


@pytest.fixture
def other(tmp_path):
    made = Accepted(tmp_path / "other")
    yield made
    made.close()


def told(link):
    """What the machine was told, which keeps nothing of it."""
    messages = []
    link.setblocking(False)
    with suppress(BlockingIOError):
        while (received := receive_message(link)) is not None:
            messages.append(received[0])
            for descriptor in received[1]:
                os.close(descriptor)
    return messages


def open_now():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_kept_is_the_machines_too_and_outlives_libzmqs(held, link, accepted):
    Connections(held).keep(NAME, accepted.libzmqs.fileno(), accepted.path)
    accepted.libzmqs.close()
    received = receive_message(link[1])
    assert received is not None
    message, (machines,) = received
    assert (message, accepted.has_ended) == (["hold", connection_key(NAME)], False)
    held.drop(connection_key(NAME))
    held.settle()
    assert not accepted.has_ended
    os.close(machines)
    assert accepted.has_ended


def test_what_is_ended_ends_at_once_whoever_has_it(held, link, accepted):
    connections = Connections(held)
    connections.keep(NAME, accepted.libzmqs.fileno(), accepted.path)
    connections.end("domains/6.1")
    assert not accepted.has_ended
    connections.end(NAME)
    assert accepted.has_ended
    assert (held.by_key, held.used) == ({}, 0)
    assert told(link[1]) == [["hold", connection_key(NAME)], ["drop", connection_key(NAME)]]
    connections.end(NAME)


def test_a_number_that_is_another_descriptors_by_now_is_not_kept(held, accepted, other):
    connections, nothing = Connections(held), os.open(os.devnull, os.O_RDONLY)
    before = open_now()
    for descriptor in (other.libzmqs.fileno(), held._link.fileno(), nothing):
        connections.keep(NAME, descriptor, accepted.path)
    assert (held.by_key, open_now()) == ({}, before)
    os.close(nothing)
    connections.keep(NAME, nothing, accepted.path)
    assert held.by_key == {}


def test_the_newest_takes_the_older_ones_place(held, link, accepted, other):
    connections = Connections(held)
    connections.keep(NAME, accepted.libzmqs.fileno(), accepted.path)
    connections.keep(NAME, other.libzmqs.fileno(), other.path)
    connections.end(NAME)
    assert (accepted.has_ended, other.has_ended) == (False, True)


def test_where_there_is_no_room_nothing_is_kept_and_no_connection_ends(held, accepted):
    held.most = held.used
    Connections(held).keep(NAME, accepted.libzmqs.fileno(), accepted.path)
    assert (held.by_key, held.used, accepted.has_ended) == ({}, held.most, False)


def test_connections_are_not_among_what_is_held_for_somebody(held, accepted):
    Connections(held).keep(NAME, accepted.libzmqs.fileno(), accepted.path)
    assert (held.count(), held.used) == (0, 1)
