"""What machine, broker and zygote tell each other: any datagram is a list or a PeerFault, and the machine's tables
of what it holds and has been asked for close every descriptor once."""

from __future__ import annotations

import array
import os
import socket

from hvd.machine.held import Held
from hvd.machine.spawns import ASKED_MAX, Spawn, Spawns
from hvd.transport.descriptors import receive_message, send_message, socket_pair
from hvd.transport.errors import PeerFault
from hvd.transport.machine_link import DISOWN, DROP, HOLD, SPAWN, SPAWNED
from tests.fuzz.python.choices import Choices
from tests.fuzz.python.open_descriptors import open_descriptors

STEPS_MAX = 40
NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
VERBS = (HOLD, DROP, SPAWN, DISOWN, SPAWNED, "asked", "again", "")


def play(data: bytes) -> None:
    choices = Choices(data)
    before = open_descriptors()
    held, spawns = Held(), Spawns()
    ours, theirs = socket_pair()
    with ours, theirs:
        for _ in range(STEPS_MAX):
            if not choices.more():
                break
            _send(choices, theirs)
            _receive(ours, held, spawns)
            assert spawns.deadline() is None or len(list(spawns.expected())) <= STEPS_MAX
    held.drop_all()
    spawns.clear()
    assert open_descriptors() == before, "descriptors were left open"


def _send(choices: Choices, sock: socket.socket) -> None:
    count = choices.below(3)
    if choices.below(4) == 3:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [NULL] * count))] if count else []
        sock.sendmsg([choices.take(choices.below(64))], rights, socket.MSG_NOSIGNAL)
        return
    verb = choices.pick(VERBS)
    values = [choices.text(3)] if verb in (HOLD, DROP) else [choices.below(4), choices.below(3), choices.below(256)]
    send_message(sock, [verb, *values], (NULL,) * count)


def _receive(sock: socket.socket, held: Held, spawns: Spawns) -> None:
    """As the machine sorts what its broker and its zygote say."""
    try:
        received = receive_message(sock)
    except PeerFault:
        return
    if received is None:
        return
    message, descriptors = received
    match message:
        case ["hold", str() as key]:
            held.hold(key, descriptors)
            return
        case ["drop", str() as key]:
            held.drop(key)
        case ["spawn", int() as domid, int() as incarnation, *_]:
            spawns.add(Spawn(domid, incarnation, message, descriptors))
            return
        case ["disown", int() as domid, int() as incarnation, *_]:
            spawns.disown(domid, incarnation)
        case ["spawned", int() as domid, int() as incarnation, *_]:
            spawns.answered(domid, incarnation, 1.0)
        case ["asked", *_]:
            for _ in range(ASKED_MAX):
                if spawns.to_ask() is None:
                    break
                spawns.asked(1.0)
        case ["again", *_]:
            spawns.forget_asked()
    for descriptor in descriptors:
        os.close(descriptor)
