"""What a domain writes to its upcall socket: hypercalls while it comes to life, then perhaps a fault notice."""

import select
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.domain import Domain
from hvd.broker.held import UPCALL, domain_key
from hvd.broker.poller import Poller
from hvd.broker.world import POSTS_PER_TURN, World
from hvd.transport.codec import pack_request
from hvd.transport.fault_notice import NOTICE
from hvd.transport.ids import DomId
from hvd.transport.messages import DomainConfig, DomainReady

DOM = DomId(1)
POST = pack_request(DomainReady(), 1, 0, 0)
FAULT = NOTICE.pack(11, 1, 0, 0)


class Ends:
    """The broker's world as far as one domain's upcall socket goes, and the domain's end."""

    def __init__(self, on_crash="destroy"):
        self.domain = Domain(DOM, DomainConfig("d", "hvd:idle", on_crash=on_crash), "d", created_ns=0)
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours = ours
        ours.setblocking(False)
        self.heard: list[bytes] = []
        self.faults: list[Any] = []
        self.act = lambda body: None
        world: Any = World.__new__(World)
        descriptors = [-1, -1]
        descriptors[UPCALL] = ours.fileno()
        world.held = SimpleNamespace(by_key={domain_key(DOM): descriptors})
        world.publisher = SimpleNamespace(log=lambda *_, **__: None)
        world._poller = self.poller = Poller()
        world._on_post = self.post
        world._on_fault = lambda domain, notice: self.faults.append(notice)
        self.world = world
        self.poller.watch(ours.fileno(), lambda: world.hear(self.domain))

    def post(self, domain, body):
        assert domain is self.domain
        assert self.ours.recv(1, socket.MSG_PEEK), "it stays in the socket until it is in the journal"
        self.heard.append(body)
        self.act(body)

    def turn(self):
        self.poller.poll(0)

    @property
    def waits(self):
        return bool(select.select([self.ours], [], [], 0)[0])

    def close(self):
        self.poller.unwatch(self.ours.fileno())
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def ends(request):
    made = Ends(*getattr(request, "param", ()))
    yield made
    made.close()


def test_a_post_is_heard_once_and_taken_from_the_socket(ends):
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]
    assert not ends.waits
    ends.turn()
    assert ends.heard == [POST]


def test_a_broker_that_dies_before_it_has_journaled_leaves_the_post_to_the_next(ends):
    def die(body):
        raise SystemExit

    ends.theirs.send(POST)
    ends.act = die
    with pytest.raises(SystemExit):
        ends.turn()
    ends.act = lambda body: None
    ends.turn()
    assert ends.heard == [POST, POST]
    assert not ends.waits


def test_whoever_posts_without_end_lets_others_have_their_turns(ends):
    for _ in range(POSTS_PER_TURN + 1):
        ends.theirs.send(POST)
    ends.turn()
    assert len(ends.heard) == POSTS_PER_TURN
    ends.turn()
    assert len(ends.heard) == POSTS_PER_TURN + 1


def test_a_domain_that_is_ready_is_heard_no_more(ends):
    def ready(body):
        ends.domain.ready = True

    ends.act = ready
    ends.theirs.send(POST)
    ends.theirs.send(POST)
    ends.turn()
    ends.turn()
    assert ends.heard == [POST]


@pytest.mark.parametrize("ends", [("coredump-destroy",)], indirect=True)
def test_a_fault_notice_stays_for_the_next_broker(ends):
    ends.theirs.send(POST)
    ends.theirs.send(FAULT)
    ends.turn()
    assert ends.heard == [POST]
    assert [notice.signal for notice in ends.faults] == [11]
    assert ends.waits
    ends.turn()
    assert len(ends.faults) == 1


def test_a_notice_of_a_domain_of_whom_no_core_is_wanted_is_dropped_and_what_follows_is_heard(ends):
    ends.theirs.send(FAULT)
    ends.theirs.send(POST)
    ends.turn()
    assert (ends.heard, ends.faults) == ([POST], [])


def test_a_closed_end_and_one_that_has_gone_meanwhile_are_no_trouble(ends):
    ends.act = lambda body: ends.world.held.by_key.clear()
    ends.theirs.send(POST)
    ends.theirs.send(POST)
    ends.turn()
    assert ends.heard == [POST]
    ends.world.held.by_key[domain_key(DOM)] = [ends.ours.fileno()] * 2
    ends.theirs.close()
    for _ in range(3):
        ends.turn()
    assert ends.faults == []
