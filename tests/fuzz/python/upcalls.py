"""What arrives on a descriptor socket: any datagram, with any descriptors, is sorted, or is told to be broken, and none
of them leaks."""

from __future__ import annotations

import array
import os
import socket

import msgpack

from hvd.transport.descriptors import receive_message, socket_pair
from hvd.transport.errors import PeerFault
from hvd.transport.upcalls import ReplyTooLarge, UpcallReceiver, UpcallsBroken, UpcallTimeout
from tests.fuzz.python.choices import Choices
from tests.fuzz.python.open_descriptors import open_descriptors

STEPS_MAX = 24
VERBS = ("birth", "run", "descriptors", "event", "reply", "too large", "hurry", "spawn", "")
NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def play(data: bytes) -> None:
    choices = Choices(data)
    before = open_descriptors()
    ours, theirs = socket_pair()
    with ours, theirs:
        receiver = UpcallReceiver(ours)
        for _ in range(STEPS_MAX):
            if not choices.more():
                break
            _send(choices, theirs)
            _receive(choices, receiver, ours)
        _close_all(receiver, ours)
    assert open_descriptors() == before, "descriptors were left open"


def _send(choices: Choices, sock: socket.socket) -> None:
    count = choices.below(4)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [NULL] * count))] if count else []
    try:
        sock.sendmsg([_datagram(choices)], rights, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return  # a full socket: the receiver has enough


def _datagram(choices: Choices) -> bytes:
    if choices.flag():
        return choices.take(choices.below(64))
    values: list[object] = [choices.pick(VERBS)]
    for _ in range(choices.below(4)):
        values.append(choices.pick((choices.number(1), choices.number(8), choices.text(8), {}, [], None, True, -1)))
    packed: bytes = msgpack.packb(values)
    return packed


def _receive(choices: Choices, receiver: UpcallReceiver, sock: socket.socket) -> None:
    try:
        match choices.below(6):
            case 0:
                for descriptor in receiver.take_descriptors(choices.below(4), choices.below(4), 0.0):
                    os.close(descriptor)
            case 1:
                receiver.next_event()
            case 2:
                message = receive_message(sock)
                assert message is None or isinstance(message[0], list)
                for descriptor in message[1] if message is not None else []:
                    os.close(descriptor)
            case 3:
                reply = receiver.wait_reply(choices.below(4), 0.0)
                assert reply is None or len(reply) == 3
            case _:
                receiver.read_all()
    except (PeerFault, UpcallsBroken, UpcallTimeout, ReplyTooLarge, BlockingIOError, EOFError):
        return


def _close_all(receiver: UpcallReceiver, sock: socket.socket) -> None:
    """Whatever is still on its way, and what the receiver keeps for whoever asks for it."""
    while True:
        try:
            receiver.read_all()
            break
        except UpcallsBroken:
            continue
    kept = list(receiver._descriptors.values()) + ([receiver._birth[1]] if receiver._birth is not None else [])
    for descriptors in kept:
        for descriptor in descriptors:
            os.close(descriptor)
