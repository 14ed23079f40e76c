"""Attacks on XenStore's own protocol, which the broker speaks with each domain by a socket and a ring."""

from __future__ import annotations

import socket

from hvd.toolstack.attacks.arena import Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import REACHES_SOCKETS, against_broker, resident_kib, undefended
from hvd.toolstack.cluster import Domain
from hvd.transport import messages as m
from hvd.transport.multicall import ask_all
from hvd.transport.run_dir import DOMAINS, STORE_SOCKET
from hvd.transport.xs_wire import Type, pack

CONNECTIONS, NODES = 8, 300
UNREAD_MAX_KIB = 2048
"""Of what a domain may make the broker grow by, the part that its connections may have."""
DEADLINE_S = 5.0
RESETS = 40
LONG, NAMES, NAME_CHARS = "/attack", 150, 200
"""More than seven messages hold."""


def _read_nothing(arena: Arena) -> Seen:
    before, broker = resident_kib(arena), arena.broker_pid()
    told = arena.attack("xenstored.read_nothing", CONNECTIONS, NODES)
    grown = resident_kib(arena) - before
    what = f"{told}; the broker has {grown:,} KiB more"
    return harm(what) if grown > UNREAD_MAX_KIB or arena.broker_pid() != broker else harmless(what)


def _flood(arena: Arena) -> Seen:
    """Another domain is served by its own socket."""
    told = arena.attack("xenstored.flood")
    other = arena.attack("xenstored.ask_once")
    return harmless(f"{told}; another {other}") if other == "did was told 1" else harm(f"{told}; another {other}")


def _reset(arena: Arena) -> Seen:
    """Nothing of a transaction that was reset is there, as many can begin as before, and the broker is the same."""
    broker, attacker = arena.broker_pid(), arena.domain("xenstored.reset_in_transactions", RESETS, wait=False)
    told = arena.outcome(attacker)
    planted = arena.read(attacker, "data/planted") is not None
    what = f"{told}; {'what one of them wrote is there' if planted else 'nothing that they wrote is there'}"
    as_ever = "ended 0 transactions" in told and "began 3 at last" in told
    wrong = planted or not as_ever or arena.broker_pid() != broker
    return harm(what) if wrong else harmless(what)


def _path(arena: Arena, victim: Domain) -> str:
    return f"{arena.cluster.run_dir}/{DOMAINS}/{victim.domid}.1/{STORE_SOCKET}"


def _forged(arena: Arena, victim: Domain, told: str) -> Seen:
    forged = arena.read(victim, "data/forged") is not None
    return harm("the victim's store was written in its name") if forged else harmless(told)


def _as_another(off: tuple[str, ...]) -> Attempt:
    """Where the attacker finds the victim's socket, too."""

    def attempt(arena: Arena) -> Seen:
        victim = arena.domain("xenstored.ask_once")
        return _forged(arena, victim, arena.attack("xenstored.write_by", _path(arena, victim), off=off))

    return attempt


def _by_the_host(arena: Arena) -> Seen:
    """Whoever is no domain's process is heard at any socket that he reaches."""
    victim = arena.domain("xenstored.ask_once")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(_path(arena, victim))
        connection.sendall(pack(Type.WRITE, 0, 0, b"data/forged\0" + b"1"))
        return _forged(arena, victim, f"answered: {connection.recv(4096)!r}")


def _long_replies(arena: Arena) -> str:
    """Of a directory of domain 0's, which may have more names than a message holds."""
    attacker = arena.domain("xenstored.ask_for_long_replies", LONG, paused=True)
    for first in range(0, NAMES, 25):
        names = [f"{LONG}/{'n' * NAME_CHARS}{number}" for number in range(first, first + 25)]
        ask_all(arena.cluster.call, [m.StoreMkdir(0, name) for name in names])
    arena.cluster.call(m.StoreSetPerms(0, LONG, ["n0", f"r{attacker.domid}"]))
    attacker.unpause()
    told = arena.outcome(attacker)
    arena.cluster.call(m.StoreRm(0, LONG))
    if not told.startswith("did"):
        raise TimeoutError(f"an answer was none: {told}")
    return told


ANSWERED = r"did was answered in \[6, 0, \d+, [1-4]\d{3}, [1-4]\d{3}, [1-4]\d{3}, \d{1,2}\] bytes"
ATTACKS: list[Attack] = [
    Attack("XSA-326 XSA-416 a client of XenStore that reads nothing", "XenStore: backlogs are bounded", _read_nothing,
           undefended("queues_without_end", 10_000), "against a peer that keeps what is not taken"),
    Attack("a flood of connections to XenStore", "XenStore: store_connections_max", _flood,
           undefended("keeps_connections", 100), "against a server with 64 descriptors that accepts everybody"),
    Attack("another domain's XenStore socket (root)", "root", _as_another(()), _by_the_host,
           "by a process of the host", needs=("root",)),
    Attack("another domain's XenStore socket", "XenStore: a client is the domain that its process is of",
           _as_another(REACHES_SOCKETS), _by_the_host, "by a process of the host"),
    Attack("XSA-72 replies that are too long", "XenStore: bounds",
           against_broker(_long_replies, ANSWERED),
           undefended("copies_whatever_comes", 5000), "against a buffer of 4,096 bytes that takes what comes"),
    Attack("XSA-484 a reset inside a transaction", "XenStore: a reset ends what is open, and is a part of nothing",
           _reset, undefended("forgets_what_is_open", 3), "against a store that uses what it has dropped"),
    Attack("XSA-38 an index of XenStore's ring that cannot be", "XenStore: ring indices are bounded",
           against_broker(lambda arena: arena.attack("xenstored.break_ring"), "did 5 times: (RINGIDX ){4}PROTO"),
           undefended("copies_whatever_comes", 5000), "against a buffer of 4,096 bytes that takes what comes"),
]  # fmt: skip
