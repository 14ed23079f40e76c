"""Hostile domains: nonsense harms nobody but its sender. That grants cannot be abused: tests/attacks."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport import messages as m
from hvd.transport.codec import pack_request
from hvd.transport.hypercalls import HypercallError, socket_address
from hvd.transport.ids import DOM0, DOMID_SELF
from hvd.transport.messages import DomainConfig
from hvd.transport.run_dir import ENDPOINT

DEADLINE_S = 60.0

OWNER = """
def main(guest):
    '''Grants a page to the domain in `data/peer`, and shows on demand what is in it.'''
    store = guest.runtime.store
    store.watch('data/peer', lambda path: None)
    guest.runtime.wait_until(lambda: store.read('data/peer') is not None, 'a peer', 60)
    readonly = guest.args == ['readonly']
    shared = guest.runtime.grants.share(int(store.read('data/peer')), 2, readonly=readonly)
    shared.view[:8] = b'original'
    store.write('data/ref', shared.ref)
    store.watch('data/show', lambda path: store.write('data/content', bytes(shared.view[:8])))
    guest.run_forever()
"""

RAW = """
import msgpack
from hvd.transport.codec import unpack_reply

def main(guest):
    '''Sends each of the messages in `data/messages` as it is, and writes what comes back.'''
    socket, store = guest.runtime.hypercalls.connection._socket, guest.runtime.store
    replies = []
    for message in [bytes.fromhex(line) for line in guest.args]:
        socket.send(message)
        replies.append(list(unpack_reply(socket.recv())[:3]) if socket.poll(20_000) else None)
    guest.runtime.hypercalls.requests.sequence = 10**9
    store.write('data/outcome', repr(replies))
    guest.run_forever()
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


@pytest.fixture
def boot(cluster: Cluster, tmp_path: Path) -> Callable[..., Any]:
    """A domain that runs a kernel's text."""

    def create(name: str, text: str, *args: object, **fields: Any) -> Any:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        config = DomainConfig(name, str(path), args=[str(arg) for arg in args], on_crash="preserve", **fields)
        domain = cluster.create(config)
        domain.wait_ready(DEADLINE_S)
        return domain

    return create


def read(cluster: Cluster, domain: Any, node: str) -> str | None:
    with contextlib.suppress(HypercallError):
        return str(cluster.call(m.StoreRead(0, f"/local/domain/{domain.domid}/{node}")).decode())
    return None


def write(cluster: Cluster, domain: Any, node: str, value: object) -> None:
    cluster.call(m.StoreWrite(0, f"/local/domain/{domain.domid}/{node}", str(value).encode()))


def node(cluster: Cluster, domain: Any, name: str) -> str:
    """Wait until a domain has written a node."""
    end = time.monotonic() + DEADLINE_S
    while (value := read(cluster, domain, name)) is None:
        info = domain.info()
        assert info.state is DomainState.RUNNING, info.last_death
        assert time.monotonic() < end, f"{domain.name} has not written {name}"
        time.sleep(0.005)
    return value


def held(cluster: Cluster) -> dict[str, int]:
    """What the tables and the broker hold for domains."""
    info = cluster.info()
    return {name: info[name] for name in ("ports", "granted_pages", "mappings", "extents", "descriptors")}


def broker_log(cluster: Cluster) -> list[dict[str, Any]]:
    log = cluster.run_dir / "log" / "broker.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def log_line(cluster: Cluster, **fields: object) -> dict[str, Any]:
    """Wait for a line with these fields: a thread writes the first ones."""
    end = time.monotonic() + DEADLINE_S
    while True:
        for line in broker_log(cluster):
            if all(line.get(key) == value for key, value in fields.items()):
                return line
        assert time.monotonic() < end, f"no line with {fields}"
        time.sleep(0.005)


def assert_nothing_else_harmed(cluster: Cluster, broker: int) -> None:
    """The same broker still makes domains."""
    cluster.create(DomainConfig("afterwards", "hvd:idle")).wait_ready(DEADLINE_S)
    assert cluster.info()["broker_pid"] == broker
    assert cluster.info()["broker_restarts"] == 0


# ---- grants ----------------------------------------------------------------------------------------------------------


MISTAKES = """
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOMID_SELF, GrantRef, Port

def main(guest):
    '''Uses what is not its own, or not there.'''
    call, other = guest.runtime.hypercalls.call, int(guest.args[0])
    outcome = []
    for message in [
        m.GnttabMap(other, GrantRef(0), 1, True), m.GnttabMap(other, GrantRef(8), 1, False),
        m.GnttabMap(other, GrantRef(2**31 - 1), 8192, False), m.GnttabMap(0x7fef, GrantRef(8), 1, False),
        m.GnttabMap(DOMID_SELF, GrantRef(8), 1, False), m.GnttabUnmap(1), m.GnttabEndAccess(GrantRef(8), 1),
        m.GnttabFree(1), m.GnttabShare(1, 0, 1), m.GnttabAllocate(other, 0), m.GnttabAllocate(0x7fef, 1),
        m.EvtchnSend(Port(131071)), m.EvtchnClose(Port(99)), m.EvtchnBindInterdomain(other, Port(2)),
        m.EvtchnBindInterdomain(other, Port(1)), m.EvtchnBindVirq(5), m.EvtchnStatus(other, Port(1)),
        m.EvtchnReset(other), m.DomctlDestroy(other), m.DomctlPause(0), m.MachineStop(False), m.SysctlReadConsole(),
        m.StoreWrite(0, f'/local/domain/{other}/data/x', b'1'), m.StoreRead(0, f'/local/domain/{other}/data'),
        m.StoreTransactionEnd(99, True), m.SchedWatchdog(1, 1),
    ]:
        try:
            outcome.append((type(message).__name__, call(message)))
        except HypercallError as error:
            outcome.append((type(message).__name__, -error.errno, error.text))
    guest.runtime.store.write('data/outcome', repr(outcome)[:4000])
    guest.run_forever()
"""


def test_every_use_of_what_is_anothers_or_not_there_is_refused_with_a_text(
    cluster: Cluster, boot: Callable[..., Any]
) -> None:
    broker = cluster.info()["broker_pid"]
    victim = boot("victim", "def main(guest):\n    guest.run_forever()\n")
    intruder = boot("intruder", MISTAKES, victim.domid)
    text = node(cluster, intruder, "data/outcome")
    outcome = ast.literal_eval(text) if text.endswith("]") else ast.literal_eval(text[: text.rindex(", (")] + "]")
    assert len(outcome) > 20
    for name, code, *words in outcome:
        assert code < 0, f"{name} was carried out"
        assert words[0]
    assert victim.state is DomainState.RUNNING
    assert_nothing_else_harmed(cluster, broker)


def test_a_domain_that_sends_its_victims_notifies_into_sealed_pages_is_refused(
    cluster: Cluster, boot: Callable[..., Any]
) -> None:
    """An owner that dies while a byte of its sealed extent was to be cleared must not take the broker with it."""
    broker = cluster.info()["broker_pid"]
    text = """
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError

def main(guest):
    call = guest.runtime.hypercalls.call
    shared = guest.runtime.grants.share(0, 1, readonly=True)
    try:
        call(m.GnttabShareNotify(shared.id, 0, True, 0))
    except HypercallError as error:
        guest.runtime.store.write('data/outcome', error.text)
    guest.run_forever()
"""
    hostile = boot("hostile", text)
    assert "sealed" in node(cluster, hostile, "data/outcome")
    hostile.kill()
    hostile.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    assert_nothing_else_harmed(cluster, broker)


def test_a_mapper_whose_owner_died_still_unmaps_and_dies_in_peace(cluster: Cluster, boot: Callable[..., Any]) -> None:
    broker = cluster.info()["broker_pid"]
    mapper = """
import os
from hvd.transport import messages as m
from hvd.transport.ids import GrantRef

def main(guest):
    store, call = guest.runtime.store, guest.runtime.hypercalls.call
    for path in ('data/ref', 'data/orphaned'):
        store.watch(path, lambda path: None)
    guest.runtime.wait_until(lambda: store.read('data/ref') is not None, 'a ref', 60)
    owner, ref = int(store.read('data/owner')), int(store.read('data/ref'))
    handles = []
    for _ in range(2):
        reply = call(m.GnttabMap(owner, GrantRef(ref), 0, True))
        value = reply[0] if isinstance(reply, tuple) else reply
        handles.append(value['handle'])
        call(m.GnttabUnmapNotify(value['handle'], 0, True, 0))
    store.write('data/mapped', '1')
    guest.runtime.wait_until(lambda: store.read('data/orphaned') is not None, 'the death', 60)
    call(m.GnttabUnmap(handles[0]))
    store.write('data/outcome', '1')
    guest.run_forever()
"""
    before = held(cluster)
    taker = boot("taker", mapper)
    owner = boot("owner", OWNER, "writable")
    write(cluster, owner, "data/peer", taker.domid)
    write(cluster, taker, "data/owner", owner.domid)
    write(cluster, taker, "data/ref", node(cluster, owner, "data/ref"))
    node(cluster, taker, "data/mapped")
    owner.destroy()
    write(cluster, taker, "data/orphaned", "1")
    assert node(cluster, taker, "data/outcome") == "1"
    taker.destroy()
    end = time.monotonic() + DEADLINE_S
    while held(cluster) != before:  # domain 0 lets go of their consoles when it hears of it
        assert time.monotonic() < end, f"{held(cluster)} are held, {before} were"
        time.sleep(0.005)
    assert_nothing_else_harmed(cluster, broker)


# ---- messages --------------------------------------------------------------------------------------------------------


def request(message: Any, sequence: int) -> bytes:
    return pack_request(message, sequence, 0, 0)


def test_nonsense_on_the_right_socket_is_answered_logged_with_the_domid_and_harms_nobody(
    cluster: Cluster, boot: Callable[..., Any]
) -> None:
    broker = cluster.info()["broker_pid"]
    good = request(m.StoreMkdir(0, "data/made"), 10**6)
    nested = b"\x91" * 900 + b"\xc0"
    nonsense = [
        b"", b"\xc1", good[:-1], good + b"x", nested, b"\x96\x01\x05\x00\x00\xcd\x11\x00" + nested,
        bytes([0x96, 1, 6, 0, 0, 0xCD, 0xFF, 0xFF, 0x90]), b"x" * 2_000, good.replace(b"data/made", b"data\x00made"),
    ]  # fmt: skip
    sender = boot("sender", RAW, *[one.hex() for one in nonsense], good.hex())
    replies = ast.literal_eval(node(cluster, sender, "data/outcome"))
    assert [reply[1] for reply in replies] == [74] * len(nonsense) + [0]  # EBADMSG
    assert replies[6][0] == 6
    assert "unknown hypercall number 65535" in replies[6][2]
    assert "StoreMkdir.path" in replies[8][2]
    line = log_line(cluster, event="bad hypercall", domid=sender.domid)
    assert line["reason"]
    assert_nothing_else_harmed(cluster, broker)


def test_an_oversized_message_is_refused_and_a_huge_one_only_ends_its_connection(
    cluster: Cluster, boot: Callable[..., Any]
) -> None:
    broker = cluster.info()["broker_pid"]
    text = """
from hvd.transport.codec import unpack_reply
def main(guest):
    socket = guest.runtime.hypercalls.connection._socket
    socket.send(b'x' * 69_000)
    reply = unpack_reply(socket.recv())
    socket.send(b'x' * 1_000_000)
    guest.runtime.store.write('data/outcome', f'{reply[1]} {reply[2]}')
    guest.run_forever()
"""
    sender = boot("sender", text)
    assert node(cluster, sender, "data/outcome") == "74 69000 bytes; a hypercall has at most 65536"
    assert_nothing_else_harmed(cluster, broker)


def test_a_repeated_and_an_old_number_change_nothing(cluster: Cluster, boot: Callable[..., Any]) -> None:
    alloc = m.EvtchnAllocUnbound(DOMID_SELF, DOM0)
    messages = [request(alloc, 2000), request(alloc, 2000), request(alloc, 1999), request(alloc, 2001)]
    sender = boot("sender", RAW, *[one.hex() for one in messages])
    first, again, old, after = ast.literal_eval(node(cluster, sender, "data/outcome"))
    assert first == again
    assert (old[0], old[1]) == (1999, 116)  # ESTALE
    assert after[2]["port"] == first[2]["port"] + 1


def test_a_dead_incarnations_key_opens_nothing(cluster: Cluster, boot: Callable[..., Any]) -> None:
    """The key is left behind by a domain that dies; its successor's endpoint is knocked at with it."""
    broker = cluster.info()["broker_pid"]
    text = """
import sys
def main(guest):
    frame = sys._getframe()
    while 'certificate' not in frame.f_locals:
        frame = frame.f_back
    guest.runtime.store.write('data/key', frame.f_locals['certificate']['server_key'])
    guest.run_forever()
"""
    domain = boot("heir", text)
    key = node(cluster, domain, "data/key").encode()
    domain.kill()
    domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    domain.reboot()
    domain.wait_ready(DEADLINE_S)
    assert node(cluster, domain, "data/key").encode() != key
    directory = os.open(cluster.run_dir, os.O_PATH)
    with zmq.Context() as context:
        for name in (f"domains/{domain.domid}.1/{ENDPOINT}", f"domains/{domain.domid}.2/{ENDPOINT}"):
            socket = context.socket(zmq.DEALER)
            socket.linger = 0
            socket.curve_serverkey = key
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.connect(socket_address(directory, name))
            socket.send(request(m.SchedShutdown(0), 10**6))
            assert not socket.poll(500)
            socket.close(0)
    os.close(directory)
    assert (domain.state, domain.incarnation) == (DomainState.RUNNING, 2)
    assert_nothing_else_harmed(cluster, broker)
