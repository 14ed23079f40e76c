"""Attacks on the broker by messages: for others, in others' names, again, broken, too many, with descriptors."""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import resource
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

import msgpack
import zmq

from hvd.domains.guest import Guest
from hvd.domains.hostile.victims import answer
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_request, unpack_reply
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.multicall import ask_all

KEPT: list[Any] = []
UPCALLS = 3
ANSWER_MS = 700
ASKED_S = 15.0
PART_BYTES, CUT_OFF_S, LOOK_AGAIN_S = 66_000, 20.0, 0.05
"""A message that nobody cuts off has arrived by then, and been dropped."""
UNSENT = 3
"""Exit status."""
REPLAY_SEQUENCE = 10**6


def certificate() -> dict[str, Any]:
    """This domain's own, from wherever it lies in memory."""
    frame = sys._getframe()
    while "certificate" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    return dict(frame.f_locals["certificate"])


def own_address(guest: Guest) -> str:
    return "ipc:///run/hvd/hypercall"


def on_another(guest: Guest, dom: str) -> str:
    """Every operation on a domain that is not ours, and on the machine; what was carried out."""
    other, done = DomId(int(dom)), []
    for message in [
        m.DomctlPause(other), m.DomctlDestroy(other), m.DomctlKill(other), m.DomctlShutdown(other, False, 0),
        m.EvtchnReset(other), m.EvtchnAllocUnbound(other, DOM0), m.EvtchnStatus(other, Port(1)),
        m.DomctlUnpause(other), m.MachineStop(False), m.SysctlReadConsole(), m.SysctlPhysinfo(), m.SysctlSandboxes(),
        m.TraceStart([other]), m.XsmSetenforce(False), m.DomctlCreate(m.DomainConfig("planted", "hvd:idle")),
        m.SysctlNetworks(), m.PhysdevOpenUplink("cabin"),
        m.GnttabMap(other, GrantRef(0), 1, True), m.GnttabMap(other, GrantRef(8), 1, False),
        m.GnttabMap(other, GrantRef(2**31 - 1), 8192, False), m.GnttabUnmap(Handle(1)), m.GnttabFree(ExtentId(1)),
        m.GnttabShare(ExtentId(1), 0, 1), m.EvtchnBindInterdomain(other, Port(1)),
        m.EvtchnBindInterdomain(other, Port(2)),
    ]:  # fmt: skip
        with contextlib.suppress(HypercallError):
            guest.runtime.hypercalls.call(message)
            done.append(type(message).__name__)
    return f"carried out: {' '.join(done) or 'nothing'}"


def speak_as(guest: Guest, address: str, key: str, identity: str) -> str:
    """Write a node under this ZeroMQ identity, at an endpoint (empty: ours) with a key (empty: ours)."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.routing_id = identity.encode()
    socket.curve_serverkey = key.encode() if key else certificate()["server_key"]
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.connect(address or own_address(guest))
    socket.send(pack_request(m.StoreWrite(0, "data/forged", b"1"), REPLAY_SEQUENCE, 0, 0))
    told = f"answered: {unpack_reply(socket.recv())[:3]}" if socket.poll(ANSWER_MS) else "no answer"
    socket.close(0)  # or it and our own connection take the identity from each other for ever
    guest.runtime.hypercalls.requests.sequence = REPLAY_SEQUENCE + 1
    return told


def replay(guest: Guest, count: str, step: str) -> str:
    """One request for a port again and again; `step` is by how much its sequence number grows."""
    socket, last = guest.runtime.hypercalls.connection._socket, 0
    for number in range(int(count)):
        last = REPLAY_SEQUENCE + number * int(step)
        socket.send(pack_request(m.EvtchnAllocUnbound(DOMID_SELF, DOM0), last, 0, number))
        socket.recv()
        guest.runtime._upcalls.read_all()
    guest.runtime.hypercalls.requests.sequence = last + 1
    return f"asked {count} times"


def send_nonsense(guest: Guest, *messages: str) -> str:
    """These, given in hexadecimal, then one of a megabyte, which ends the connection."""
    socket, answered = guest.runtime.hypercalls.connection._socket, 0
    for message in messages:
        socket.send(bytes.fromhex(message))
        answered += bool(socket.poll(ANSWER_MS)) and bool(socket.recv())
    socket.send(b"x" * 1_000_000)
    guest.runtime.hypercalls.requests.sequence = 10**9
    return f"{answered} of {len(messages)} were answered"


def flood_connections(guest: Guest) -> str:
    """As many connections to the broker as a process can have; they are kept."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for _ in range(hard):
        connection = socket.socket(socket.AF_UNIX)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", ANSWER_MS // 1000, 0))
        try:
            connection.connect(own_address(guest).removeprefix("ipc://"))
        except OSError as error:
            while KEPT and len(KEPT) > hard - 64:
                KEPT.pop().close()
            return f"{len(KEPT)} connections, then {type(error).__name__}"
        KEPT.append(connection)
    return f"{len(KEPT)} connections"


def send_descriptors(guest: Guest, count: str) -> str:
    """Down the upcall socket: messages with descriptors, and messages that are none."""
    upcalls, sent = socket.socket(fileno=os.dup(UPCALLS)), 0
    forged = array.array("i", [1] * 16)
    for number in range(int(count)):
        body = msgpack.packb(["descriptors", number]) if number % 2 else b"\xc1"
        try:
            upcalls.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, forged)], socket.MSG_NOSIGNAL)
            sent += 1
        except OSError as error:  # it is full, or as many are on their way as a user may have
            return f"sent {sent} messages of 16 descriptors, then {type(error).__name__}"
    return f"sent {sent} messages of 16 descriptors"


def post_for_ever(guest: Guest) -> NoReturn:
    """Hypercalls where none is heard any more: of one that may yet send a fault notice they are taken, and dropped."""
    upcalls, request = socket.socket(fileno=os.dup(UPCALLS)), pack_request(m.XenVersion(), REPLAY_SEQUENCE, 0, 0)
    while True:
        with contextlib.suppress(BlockingIOError):
            upcalls.send(request)


class _Deaf:
    """It says that whatever was sent has been taken, and reads nothing."""

    events_seen = descriptors_received = 2**40

    def take_descriptors(self, sequence: int, count: int, deadline_s: float) -> list[int]:
        return []


def be_deaf(guest: Guest) -> None:
    """Take pages without end and never read the socket that their descriptors come over."""
    client = guest.runtime.hypercalls
    client.requests.upcalls = _Deaf()  # type: ignore[assignment]
    while True:
        extent, _ = client.call(m.GnttabAllocate(DOM0, 1, False))
        client.call(m.GnttabFree(extent))


def read_no_replies(guest: Guest, connections: str, count: str) -> str:
    """As much as one reply brings, asked for again and again on several connections that nobody reads."""
    guest.runtime.store.write("data/read", "x" * 1900)
    large = m.Multicall([pack_call(m.StoreRead(0, "data/read"))] * 64)
    key, numbers = certificate()["server_key"], itertools.count(REPLAY_SEQUENCE)
    for number in range(int(connections)):
        deaf: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        deaf.linger, deaf.rcvhwm, deaf.sndhwm = 0, 1, 0
        deaf.routing_id, deaf.curve_serverkey = b"deaf-%d" % number, key
        deaf.curve_publickey, deaf.curve_secretkey = zmq.curve_keypair()
        deaf.connect(own_address(guest))
        for message in [large] * int(count) + [m.StoreWrite(0, "data/asked", str(number).encode())]:
            deaf.send(pack_request(message, next(numbers), 0, 0))
        KEPT.append(deaf)
        guest.runtime.hypercalls.requests.sequence = next(numbers)
        _until_written(guest, "data/asked", str(number))
    return f"asked {count} times on each of {connections} connections"


def send_without_end(guest: Guest, count: str, parts: str) -> str:
    """Messages of so many parts, more than the broker shall ever keep: on one connection after the other is cut off.

    Each from a process of its own: libzmq aborts whoever is disconnected in the midst of one, and the domain is to end
    by nobody's hand but the broker's.
    """
    key = certificate()["server_key"]
    for number in range(int(count)):
        sender = os.fork()
        if sender == 0:
            try:
                _send_one_without_end(own_address(guest), key, int(parts))
            finally:  # it does not come back but by an exception
                traceback.print_exc()
                os._exit(UNSENT)
        guest.runtime.store.write("data/sent", str(number))
        while (ended := os.waitpid(sender, os.WNOHANG)) == (0, 0):
            guest.runtime.wait(LOOK_AGAIN_S)
        if os.waitstatus_to_exitcode(ended[1]) == UNSENT:
            raise ChildProcessError("a sender could not send")
    return f"sent {count} messages of {int(parts) * PART_BYTES >> 20} MiB"


def _send_one_without_end(address: str, key: bytes, parts: int) -> NoReturn:
    """It goes with its connection."""
    endless: zmq.Socket[bytes] = zmq.Context().socket(zmq.DEALER)
    endless.linger = endless.sndhwm = 0
    endless.curve_serverkey = key
    endless.curve_publickey, endless.curve_secretkey = zmq.curve_keypair()
    cut_off = endless.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    endless.connect(address)
    part = zmq.Frame(b"x" * PART_BYTES, copy=True)  # one for all: who is sent without a copy needs a module from a file
    for _ in range(parts):
        endless.send(part, zmq.SNDMORE)
    endless.send(b"and the last")
    cut_off.poll(int(CUT_OFF_S * 1000))
    os._exit(0)


def ask_on(guest: Guest) -> None:
    """One who is innocent: asks without end, checks each answer, and says on demand how many were right."""
    store, right, wrong = guest.runtime.store, 0, ""
    answer(guest, lambda: {"right": right, "wrong": wrong})
    while not wrong:
        expected = b"%d" % right
        try:
            store.write("data/asked", expected)
            told = store.read("data/asked")
        except HvdError as error:
            wrong = f"{type(error).__name__}: {error}"
        else:
            right += told == expected
            wrong = "" if told == expected else f"{told!r} in the place of {expected!r}"
        guest.runtime.wait(0)
    guest.run_forever()


def _until_written(guest: Guest, path: str, value: str) -> None:
    """What was asked before that has been answered."""
    store = guest.runtime.store
    guest.runtime.wait_until(lambda: store.read(path) == value.encode(), path, ASKED_S)


def tell_key(guest: Guest) -> str:
    """A victim that gives its key away."""
    guest.runtime.store.write("data/key", bytes(certificate()["server_key"]))
    return "told"


PATIENT_S = 600.0
"""Of whose brokers die one after the other: it asks each."""


def work_long(guest: Guest, watches: str) -> NoReturn:
    """One hypercall that takes the broker long, again and again: whoever ends a broker finds it at that."""
    call = guest.runtime.hypercalls.call
    guest.runtime.hypercalls.requests.deadline_s = PATIENT_S
    asked = [m.StoreWatch("data/watched", f"t{number}") for number in range(int(watches))]
    refused = [answered.value for answered in ask_all(call, asked) if answered.errno]
    assert not refused, refused[0]
    guest.runtime.store.write("data/working", "1")
    while True:
        call(m.StoreWrite(0, "data/watched", b"1"))
        guest.runtime._upcalls.read_all()
