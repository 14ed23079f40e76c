"""Bytes at XenStore's doors: a domain's stream and its ring page, in any pieces, answered by the real store.

What must hold: what is no message ends the connection by a PeerFault and nothing else; every whole message has one
reply, under its own numbers and no longer than a reply may be; what waits for the client stays bounded; and the store's
accounts are right.
"""

from __future__ import annotations

import pickle

from hvd.broker.hypervisor import Hypervisor
from hvd.broker.xenstored import requests
from hvd.broker.xenstored.connection import Connection, TooFarBehind
from hvd.broker.xenstored.rings import RingLine
from hvd.transport import xs_wire
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import STORE_BACKLOG_BYTES_MAX
from hvd.transport.messages import DomainConfig
from hvd.transport.xs_wire import Message, Type
from tests.fuzz.python.choices import Choices

STEPS_MAX = 40
ONE = DomId(1)
PATHS = (b"data", b"data/a", b"/", b"/local/domain/1/data", b"@releaseDomain", b"/local//x", b"a b", b"\xff", b"", b"1")
WORDS = (b"T", b"F", b"token", b"n1", b"r0", b"b0", b"0", b"1", b"9" * 20, b"-1", b"set", b"help", b"quota")


def play(data: bytes) -> None:
    choices = Choices(data)
    hypervisor = _machine()
    domid = ONE if choices.flag() else DOM0
    connection = Connection(domid, 2)
    line = _ring() if choices.flag() else None
    try:
        for _ in range(STEPS_MAX):
            if not choices.more():
                break
            _hear(hypervisor, connection, line, choices)
    except PeerFault as fault:
        assert str(fault)
    except TooFarBehind:
        pass
    assert not hypervisor.store.check()


def _machine() -> Hypervisor:
    hypervisor = Hypervisor(b"x" * 32, 0)
    for name in ("Domain-0", "one"):
        hypervisor.create(DomainConfig(name=name, kernel="hvd:idle"), 0)
    hypervisor.store.introduce(ONE)
    hypervisor.store.mkdir(DOM0, 0, "/local/domain/1/data")
    hypervisor.store.set_perms(DOM0, 0, "/local/domain/1/data", ["n1"])
    return hypervisor


class Silent:
    """The broker's end of a channel whose other end the fuzzer is."""

    def notify(self) -> None: ...
    def arm(self) -> None: ...

    def take(self) -> bool:
        return True


def _ring() -> tuple[RingLine, bytearray]:
    page = bytearray(4096)
    return RingLine(memoryview(page), Silent()), page  # type: ignore[arg-type]


def _compare_plain(hypervisor: Hypervisor, untrusted: bytes) -> None:
    """What the host's reads and writes are answered with together is what each is answered with alone, and does."""
    together = pickle.loads(pickle.dumps(hypervisor.store))
    replies, end, _ = together.answer_plain(untrusted, 0)
    at, expected = 0, b""
    while at < end:
        found = xs_wire.split(untrusted, at)
        assert found is not None
        message, at = found
        kind, payload = requests.answer(hypervisor, DOM0, 2, message)
        expected += xs_wire.pack(kind, message.req_id, message.tx_id, payload)
    assert replies == expected
    assert together.statistics() == hypervisor.store.statistics()


def _hear(
    hypervisor: Hypervisor, connection: Connection, line: tuple[RingLine, bytearray] | None, choices: Choices
) -> None:
    untrusted = _bytes(choices)
    if line is not None:
        untrusted = _through_the_ring(line, untrusted, choices)
    connection.take_in(untrusted)
    if connection.domid == DOM0:
        _compare_plain(hypervisor, untrusted)
    while (message := connection.next_message()) is not None:
        _answer(hypervisor, connection, message)
    if line is not None:
        connection.sent(line[0].send(connection.outgoing() if connection.waiting else b""))


def _bytes(choices: Choices) -> bytes:
    """A whole request, or anything."""
    if choices.below(4) == 0:
        return choices.take(choices.below(60))
    words = [choices.pick(PATHS)] + [choices.pick(WORDS) for _ in range(choices.below(4))]
    payload = b"\0".join(words) + (b"" if choices.below(4) == 0 else b"\0")
    return xs_wire.pack(choices.below(26), choices.number(1), choices.below(4), payload)


def _through_the_ring(line: tuple[RingLine, bytearray], untrusted: bytes, choices: Choices) -> bytes:
    ring, page = line
    words = memoryview(page).cast("I")
    produced = words[xs_wire.REQ_PROD_AT // 4]
    for offset, byte in enumerate(untrusted[: xs_wire.RING_BYTES]):
        page[(produced + offset) % xs_wire.RING_BYTES] = byte
    words[xs_wire.REQ_PROD_AT // 4] = (produced + len(untrusted)) & 0xFFFFFFFF
    if choices.below(8) == 0:
        words[choices.pick((xs_wire.REQ_PROD_AT, xs_wire.RSP_CONS_AT, xs_wire.REQ_CONS_AT, 0)) // 4] = choices.number(4)
    elif choices.flag():
        words[xs_wire.RSP_CONS_AT // 4] = words[xs_wire.RSP_PROD_AT // 4]
    heard = ring.receive()
    assert len(heard) <= xs_wire.RING_BYTES
    return heard


def _answer(hypervisor: Hypervisor, connection: Connection, message: Message) -> None:
    kind, payload = requests.answer(hypervisor, connection.domid, connection.number, message)
    assert kind in (message.type, Type.ERROR) and len(payload) <= xs_wire.PAYLOAD_MAX
    if kind == Type.ERROR:
        assert payload in xs_wire.ERRORS.values()
    data = xs_wire.pack(kind, message.req_id, message.tx_id, payload)
    found = xs_wire.split(data, 0)
    assert found == (Message(kind, message.req_id, message.tx_id, payload), len(data))
    while hypervisor.store.has_unsettled:
        hypervisor.store.settle()
    for event in hypervisor.store.take_events():
        if event.connection == connection.number:
            text = xs_wire.strings(event.path.encode(), event.token.encode("utf-8", "surrogateescape"))
            assert len(text) <= xs_wire.PAYLOAD_MAX
            connection.add_event(xs_wire.pack(Type.WATCH_EVENT, 0, 0, text))
    assert len(connection.outgoing() if connection.waiting else b"") <= 2 * STORE_BACKLOG_BYTES_MAX
    connection.add_reply(data)
    connection.sent(len(data) // 2)
