"""What a domain sends up its upcall socket, in any state of its life: each post is heard once while it comes to life, a
bounded number a turn, then a fault notice at most; nothing it sends is left open or read for ever."""

from __future__ import annotations

import array
import os
import socket
from types import SimpleNamespace
from typing import Any

from hvd.broker.domain import ACTING, Domain, Life
from hvd.broker.held import UPCALL, domain_key
from hvd.broker.poller import Poller
from hvd.broker.upcall_sockets import POSTS_PER_TURN, UpcallSockets
from hvd.transport.codec import BadMessage, pack_request, unpack_request
from hvd.transport.fault_notice import NOTICE, FaultNotice
from hvd.transport.ids import DomId
from hvd.transport.limits import MESSAGE_BYTES_MAX
from hvd.transport.messages import DomainConfig, DomainReady, SandboxReport
from tests.fuzz.python.choices import Choices
from tests.fuzz.python.open_descriptors import open_descriptors

STEPS_MAX = 40
DOM = DomId(1)
NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


class Broker:
    """As much of one as a domain's upcall socket needs."""

    def __init__(self, *, wants_cores: bool) -> None:
        on_crash = "coredump-destroy" if wants_cores else "destroy"
        self.domain = Domain(DOM, DomainConfig("d", "hvd:idle", on_crash=on_crash), "d", created_ns=0)
        self.domain.life = Life.RUNNING
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.taken: list[bytes | None] = []
        """What was taken out of the socket; None: unheard, as it came where nothing is."""
        self.hurries = False
        """Whether a backend of its has died."""
        self.faults: list[FaultNotice | None] = []
        descriptors = [-1, -1]
        descriptors[UPCALL] = self.ours.fileno()
        held: Any = SimpleNamespace(by_key={domain_key(DOM): descriptors})
        self.poller = Poller()
        self.sockets = UpcallSockets(
            held, self.poller, lambda *_, **__: None, kill=lambda _: None,
            on_fault=self._fault, on_post=self._post,
            is_disturbed=lambda _: False, is_settling=lambda _: False, read=lambda *_: None,
            on_drop=lambda _: self.taken.append(None), ring=lambda _: None,
        )  # fmt: skip
        self.sockets.listen(self.domain)

    def _post(self, domain: Domain, body: bytes) -> None:
        """As the loop takes one in, to the point where the tables begin."""
        assert self.hurries or not domain.ready, "it is ready and was heard"
        self.taken.append(body)
        try:
            message = unpack_request(body)[3]
        except BadMessage as error:
            assert str(error)
            return
        domain.ready = isinstance(message, DomainReady)

    def _fault(self, domain: Domain, notice: FaultNotice | None) -> None:
        self.faults.append(notice)
        domain.life = Life.DYING

    def turn(self) -> None:
        before = len(self.taken)
        self.poller.poll(0)
        assert len(self.taken) - before <= POSTS_PER_TURN
        assert len(self.faults) <= 1, "a fault is one, however often it is said"

    def close(self) -> None:
        self.poller.unwatch(self.ours.fileno())
        self.poller._epoll.close()
        os.close(self.sockets._nothing)
        self.ours.close()
        self.theirs.close()


def play(data: bytes) -> None:
    choices = Choices(data)
    before = open_descriptors()
    broker = Broker(wants_cores=choices.flag())
    sent: list[bytes] = []
    for _ in range(STEPS_MAX):
        if not choices.more():
            break
        match choices.below(8):
            case 0 | 1 | 2:
                broker.turn()
            case 4 if not broker.hurries and broker.domain.life in ACTING:
                broker.hurries = True
                broker.sockets.hurry(broker.domain)
            case 3 if broker.theirs.fileno() >= 0:
                broker.theirs.shutdown(choices.pick((socket.SHUT_RD, socket.SHUT_WR)))
            case _:
                sent += _sent(choices, broker.theirs)
    broker.turn()
    assert len(broker.taken) <= len(sent)
    for body, was in zip(broker.taken, sent, strict=False):
        assert body is None or (body == was and not FaultNotice.may_be(was)), "posts are heard in order, each once"
    broker.close()
    assert open_descriptors() == before, "descriptors were left open"


def _sent(choices: Choices, sock: socket.socket) -> list[bytes]:
    count = choices.below(3)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [NULL] * count))] if count else []
    body = _body(choices)
    try:
        sock.sendmsg([body], rights, socket.MSG_NOSIGNAL)
    except OSError:  # full, shut or too long
        return []
    return [body[:MESSAGE_BYTES_MAX]]


def _body(choices: Choices) -> bytes:
    match choices.below(5):
        case 0:
            return choices.take(choices.below(64))
        case 1:
            return NOTICE.pack(choices.number(1), choices.number(2), choices.number(4), choices.number(4))
        case 2:
            return pack_request(DomainReady(), choices.number(2), choices.number(1), choices.number(1))
        case 3:
            return choices.take(8) * choices.number(2)
        case _:
            return pack_request(SandboxReport({choices.text(8): choices.text(8)}), choices.number(2), 0, 0)
