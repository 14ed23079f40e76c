"""XenStore's ring page with a client at its other end that says whatever it likes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from hvd.broker.held import HeldDescriptors, channel_key, extent_key
from hvd.broker.poller import Poller
from hvd.broker.store import WatchEvent
from hvd.broker.store.watches import RING
from hvd.broker.xenstored.connection import Connection
from hvd.broker.xenstored.doors import StoreDoors
from hvd.broker.xenstored.rings import StoreRings
from hvd.transport import xs_wire
from hvd.transport.channels import open_endpoint
from hvd.transport.descriptors import socket_pair
from hvd.transport.ids import DomId, ExtentId
from hvd.transport.xs_wire import (
    CONNECTED,
    CONNECTION_AT,
    ERROR_AT,
    FEATURES_AT,
    RECONNECT,
    REQ_CONS_AT,
    REQ_PROD_AT,
    RSP_CONS_AT,
    RSP_PROD_AT,
    Message,
    RingError,
    Type,
)
from tests.process.xenstored.clients import RingClient

ONE = DomId(1)


class Machine:
    """A broker's rings, domain 1's page and channel, and a client of them that turns the broker's loop as it waits."""

    def __init__(self) -> None:
        self.link, self._machine = socket_pair()
        self.held = HeldDescriptors(self.link, {})
        self.held.create_extent(ExtentId(1), DomId(1), 1, readonly=False)
        self.held.create_channel(7)
        self.poller = Poller()
        self.logged: list[str] = []
        self.asked: list[Message] = []
        self.worked: list[DomId] = []
        self.doors = StoreDoors(lambda _: False, lambda text, _: self.logged.append(text), on_work=self.worked.append)
        self.doors.serve_by(self)
        self.rings = StoreRings(self.held, self.poller, self.doors)
        page, rx, tx, *_ = self.held.by_key[channel_key(7)]
        self.endpoint = open_endpoint(page, 0, os.dup(rx), os.dup(tx))
        self.rings.attach(ONE, ExtentId(1), 7, new=True)
        self.client = RingClient(mmap.mmap(self.held.extent(ExtentId(1)), mmap.PAGESIZE), self.ring)

    def serve(self, connection: Connection, message: Message) -> tuple[int, bytes]:
        assert (connection.domid, connection.number) == (ONE, RING)
        self.asked.append(message)
        return message.type, message.payload

    def answer_plain(self, untrusted: bytes, at: int) -> tuple[bytes, int]:
        return b"", at

    def record(self) -> bool:
        """Nothing of it is kept."""
        return False

    def ring(self) -> None:
        self.endpoint.notify()
        self.turn()

    def turn(self) -> None:
        self.poller.poll(0)
        while self.doors.has_more:
            self.doors.serve_ready()

    def close(self) -> None:
        self.rings.detach(ONE)
        self.endpoint.close()
        for descriptors in self.held.by_key.values():
            for descriptor in descriptors:
                os.close(descriptor)
        self.link.close()
        self._machine.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


def test_a_ring_is_fresh_and_says_what_the_server_can_do(machine: Machine) -> None:
    word = machine.client.word
    assert [word(at) for at in (REQ_CONS_AT, REQ_PROD_AT, RSP_CONS_AT, RSP_PROD_AT)] == [0, 0, 0, 0]
    assert (word(FEATURES_AT), word(CONNECTION_AT), word(ERROR_AT)) == (3, CONNECTED, RingError.NONE)


def test_requests_of_any_size_are_answered_all_around_the_ring(machine: Machine) -> None:
    for size in (0, 1, 1000, 1007, 1008, 1009, 3000, 4096, 700, 900):
        payload = os.urandom(size)
        reply = machine.client.call(Type.READ, payload, req_id=size)
        assert (reply.req_id, reply.payload) == (size, payload)


def test_events_come_between_the_replies(machine: Machine) -> None:
    machine.client.call(Type.READ, b"x")
    machine.doors.add_event(WatchEvent(ONE, "data", "token", RING))
    machine.doors.flush()
    assert machine.client.event() == b"data\0token\0"


def test_who_takes_no_replies_is_served_again_when_it_does(machine: Machine) -> None:
    request = xs_wire.pack(Type.READ, 1, 0, b"x" * 500)
    for _ in range(300):
        client = machine.client
        if (client.word(REQ_PROD_AT) - client.word(REQ_CONS_AT)) & 0xFFFFFFFF > 500:
            break
        client.send(request)
    served = len(machine.asked)
    assert 10 < served < 300
    replies = [machine.client.next_message().payload for _ in range(served)]
    assert set(replies) == {b"x" * 500}


@pytest.mark.parametrize(
    ("at", "lie"),
    [(REQ_PROD_AT, 1025), (REQ_PROD_AT, 0x80000000), (REQ_PROD_AT, 0xFFFFFFFF), (RSP_CONS_AT, 1),
     (RSP_CONS_AT, 0x80000000), (RSP_CONS_AT, 0xFFFFFBFF)],
)  # fmt: skip
def test_xsa_38_an_index_that_cannot_be_ends_the_conversation_until_it_reconnects(
    machine: Machine, at: int, lie: int
) -> None:
    machine.client.word(at, lie)
    machine.doors.add_event(WatchEvent(ONE, "data", "token", RING))
    machine.doors.flush()
    machine.ring()
    assert machine.client.word(ERROR_AT) == RingError.RINGIDX and "its ring index" in machine.logged[0]
    reconnect(machine)
    assert machine.client.call(Type.READ, b"again").payload == b"again"


def reconnect(machine: Machine) -> None:
    machine.client.word(CONNECTION_AT, RECONNECT)
    machine.ring()
    word = machine.client.word
    assert [word(at) for at in (REQ_CONS_AT, REQ_PROD_AT, RSP_CONS_AT, RSP_PROD_AT)] == [0, 0, 0, 0]
    assert (word(CONNECTION_AT), word(ERROR_AT)) == (CONNECTED, RingError.NONE)


def test_whoever_rings_has_us_work_for_him_though_there_is_nothing(machine: Machine) -> None:
    before = len(machine.worked)
    machine.ring()
    assert (set(machine.worked[before:]), machine.asked) == ({ONE}, [])


def test_a_message_that_is_too_long_is_a_protocol_error(machine: Machine) -> None:
    machine.client.send(xs_wire.HEADER.pack(Type.READ, 1, 0, 4097))
    machine.turn()
    assert machine.client.word(ERROR_AT) == RingError.PROTO
    machine.client.send(xs_wire.pack(Type.READ, 1, 0, b"unheard"))
    assert machine.asked == []
    reconnect(machine)
    assert machine.client.call(Type.READ, b"again").payload == b"again"


@pytest.mark.parametrize(
    ("at", "lie"), [(REQ_CONS_AT, 4000), (REQ_CONS_AT, 1), (RSP_PROD_AT, 900), (RSP_PROD_AT, 2**31)]
)
def test_an_index_of_ours_that_somebody_else_has_written_ends_the_conversation(
    machine: Machine, at: int, lie: int
) -> None:
    """It is never used: whoever writes the words that are not his harms nobody but himself."""
    machine.client.word(at, lie)
    machine.client.word(REQ_PROD_AT, 4)
    machine.ring()
    assert machine.asked == []
    assert machine.client.word(ERROR_AT) == RingError.RINGIDX
    assert f"its ring index {lie} is ours, and was 0 when we wrote it" in machine.logged[0]
    reconnect(machine)
    assert machine.client.call(Type.READ, b"again").payload == b"again"


def test_an_index_is_found_wrong_though_nothing_goes_its_way(machine: Machine) -> None:
    machine.client.call(Type.READ, b"x")
    machine.client.word(RSP_CONS_AT, machine.client.word(RSP_CONS_AT) ^ 1 << 11)
    machine.ring()
    assert machine.client.word(ERROR_AT) == RingError.RINGIDX


def test_the_ring_of_a_dead_broker_asks_its_client_to_reconnect(machine: Machine) -> None:
    assert machine.client.call(Type.READ, b"x").payload == b"x"
    machine.rings.attach(ONE, ExtentId(1), 7, new=False)
    assert machine.client.word(ERROR_AT) == RingError.COMM
    machine.ring()
    reconnect(machine)
    assert machine.client.call(Type.READ, b"y").payload == b"y"


def test_a_ring_whose_channel_and_page_are_given_up_is_forgotten(machine: Machine) -> None:
    machine.rings.detach(ONE)
    machine.held.release_channel(7)
    machine.held.drop(extent_key(ExtentId(1)))
    machine.held.settle()
    machine.rings.reset(ONE)
    machine.turn()
    assert machine.asked == []
