"""Attacks by what is asked for on several connections at a time."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Sequence
from typing import Any

import zmq

from hvd.domains.guest import Guest
from hvd.domains.hostile.grants import told
from hvd.domains.hostile.messages import REPLAY_SEQUENCE, certificate, own_address
from hvd.transport import messages as m
from hvd.transport.codec import pack_request, unpack_reply
from hvd.transport.hypercalls import QUEUED_MAX, HypercallError
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import COPY_SEGMENTS_MAX

LOST, NEAR = "lost", 20
PATIENCE_MS = 5000
"""Less than whoever hangs is left alone for."""
COPIES, PORTS_A_ROUND = COPY_SEGMENTS_MAX, 10


def _another_connection(guest: Guest) -> zmq.Socket[bytes]:
    """Beside our own to the broker, which kills whoever has many at once."""
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    made.linger = 0
    made.routing_id, made.curve_serverkey = b"race", certificate()["server_key"]
    made.curve_publickey, made.curve_secretkey = zmq.curve_keypair()
    made.connect(own_address(guest))
    return made


class Race:
    """What is asked for on two connections, past our own client, whose answers come in the order of asking."""

    def __init__(self, guest: Guest) -> None:
        self._guest, self._client = guest, guest.runtime.hypercalls
        self._client.call(m.XenVersion())  # from here on over our own connection
        self._client.requests.sequence = REPLAY_SEQUENCE
        self._sockets = [self._client.connection._socket, _another_connection(guest)]

    def ask(self, ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[int, Any]]:
        """Both at once, one and one in turns: (errno, value) of each of ours, then of the others; LOST: none came.

        What overtakes another's number is told that the other is old: who comes first is the broker's to say.
        """
        answers: tuple[list[tuple[int, Any]], list[tuple[int, Any]]] = ([], [])
        for first in range(0, max(len(ours), len(theirs)), QUEUED_MAX):  # more answers at once are not kept
            asked = [messages[first : first + QUEUED_MAX] for messages in (ours, theirs)]
            self._send(asked)
            for messages, connection, to in zip(asked, self._sockets, answers, strict=True):
                to.extend(_answer(connection) for _ in messages)
            self._guest.runtime._upcalls.read_all()
        return [*answers[0], *answers[1]]

    def _send(self, asked: Sequence[Sequence[Any]]) -> None:
        sequence, taken = self._client.requests.sequence, self._guest.runtime._upcalls
        for pair in itertools.zip_longest(*asked):
            for message, connection in zip(pair, self._sockets, strict=True):
                if message is not None:
                    sequence += 1
                    connection.send(pack_request(message, sequence, taken.events_seen, taken.descriptors_received))
        self._client.requests.sequence = sequence


def _answer(connection: zmq.Socket[bytes]) -> tuple[int, Any]:
    _, error, value, _ = unpack_reply(connection.recv()) if connection.poll(PATIENCE_MS) else (0, 0, LOST, 0)
    return error, value


def _done(answers: list[tuple[int, Any]]) -> int:
    """How many were carried out."""
    return sum(not error and value != LOST for error, value in answers)


def race_unmaps(guest: Guest, rounds: str) -> str:
    """XSA-228, XSA-236: every mapping given back on two connections at once, while each of them maps the page again.

    In the end it is mapped once, until we are told to go.
    """
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    client, race = guest.runtime.hypercalls, Race(guest)
    handles: list[int] = []
    done = {"mapped": 0, "unmapped": 0, "refused": 0, "lost": 0}
    for _ in range(int(rounds)):
        asked = [*(m.GnttabUnmap(Handle(handle)) for handle in handles), m.GnttabMap(owner, ref, 1, True)]
        handles = []
        for error, value in race.ask(asked, asked):
            if value == LOST:
                done["lost"] += 1
            elif isinstance(value, dict):
                handles.append(value["handle"])
                done["mapped"] += 1
            else:
                done["unmapped" if not error else "refused"] += 1
    value = client.call(m.GnttabMap(owner, ref, 1, True))
    kept = (value[0] if isinstance(value, tuple) else value)["handle"]
    for handle in range(1, kept + NEAR):  # whose answer was lost, too: whoever does not read in time loses some
        if handle != kept:
            with contextlib.suppress(HypercallError):
                client.call(m.GnttabUnmap(Handle(handle)))
    guest.runtime.store.write("data/kept", "1")
    told(guest, "go")
    client.call(m.GnttabUnmap(Handle(kept)))
    return f"has {done}"


def race_copies(guest: Guest, keeps: str) -> str:
    """XSA-486, XSA-500, XSA-501: copies into another's page that is mapped, while what they come from changes its mode.

    Until we are told to go. `keeps`: with a mapping that is not given back.
    """
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    race, done = Race(guest), {"copied": 0, "mapped": 0, "changed": 0}
    if int(keeps):
        guest.runtime.hypercalls.call(m.GnttabMap(owner, ref, 1, True))
    extent, mine = _page_of_ours(guest, number=0)
    for number in itertools.count(1):
        here, there = m.CopyEnd(DOMID_SELF, mine, 0), m.CopyEnd(owner, ref, 0)
        copies = [m.GnttabCopy([m.CopySegment(here, there, 8)] * COPIES)] * 2
        changes = [m.GnttabMap(owner, ref, 1, True), m.GnttabEndAccess(mine, 1), m.GnttabFree(extent)]
        answers = race.ask(copies, changes)
        done["copied"] += sum(value.count(0) for _, value in answers[:2] if isinstance(value, list))
        for error, value in answers[2:]:
            if isinstance(value, dict) and not error:
                done["mapped"] += 1
                guest.runtime.hypercalls.call(m.GnttabUnmap(Handle(value["handle"])))
        done["changed"] += _done(answers[3:])
        _let_go(guest, extent, mine)
        extent, mine = _page_of_ours(guest, number=number)
        if number == 1:
            guest.runtime.store.write("data/racing", "1")
        if guest.runtime.store.read("data/go") is not None:
            break
    return f"has {done}"


def _page_of_ours(guest: Guest, number: int) -> tuple[ExtentId, GrantRef]:
    """One granted to domain 0, with this number in it; every other one read-only."""
    call = guest.runtime.hypercalls.call
    extent, (descriptor,) = call(m.GnttabAllocate(DOM0, 1, number % 2 == 1))
    os.pwrite(descriptor, b"%08d" % number, 0)
    os.close(descriptor)
    return extent, GrantRef(call(m.GnttabShare(extent, 0, 1)))


def _let_go(guest: Guest, extent: ExtentId, ref: GrantRef) -> None:
    for message in (m.GnttabEndAccess(ref, 1), m.GnttabFree(extent)):
        with contextlib.suppress(HypercallError):  # it was done in the race
            guest.runtime.hypercalls.call(message)


def free_twice(guest: Guest, rounds: str) -> str:
    """XSA-26, XSA-255: memory given back twice on two connections at once, and others' near it; then all there is."""
    call, race, freed = guest.runtime.hypercalls.call, Race(guest), 0
    for _ in range(int(rounds)):
        extent, (descriptor,) = call(m.GnttabAllocate(DOM0, 1, False))
        os.close(descriptor)
        numbers = (extent, extent, *range(max(1, extent - NEAR), extent + 3))
        near = [m.GnttabFree(ExtentId(number)) for number in numbers]
        freed += _done(race.ask(near, near))
    kept = 0
    with contextlib.suppress(HypercallError):
        while True:
            _, (descriptor,) = call(m.GnttabAllocate(DOM0, 1, False))
            os.close(descriptor)
            kept += 1
    return f"gave back {freed} of {rounds}, and has {kept}"


def copy_crosswise(guest: Guest, rounds: str) -> str:
    """XSA-411: copies from us to another and from him to us, on two connections at once, while he does the same."""
    shared = guest.runtime.grants.share(DomId(int(told(guest, "peer"))), 1)
    guest.runtime.store.write("data/ref", shared.ref)
    peer, theirs = DomId(int(told(guest, "peer"))), GrantRef(int(told(guest, "peers-ref")))
    race, copied = Race(guest), 0
    here, there = m.CopyEnd(DOMID_SELF, shared.ref, 0), m.CopyEnd(peer, theirs, 0)
    to = m.GnttabCopy([m.CopySegment(here, there, 4096)] * COPIES)
    back = m.GnttabCopy([m.CopySegment(there, here, 4096)] * COPIES)
    for _ in range(int(rounds)):
        copied += sum(value.count(0) for _, value in race.ask([to, back], [back, to]) if isinstance(value, list))
    return f"copied {copied:,} pages" if copied else "copied nothing"


def reset_while_it_grows(guest: Guest, rounds: str) -> str:
    """XSA-344, XSA-505: a reset of all ports that there can be; some made, rung, closed and reset at once."""
    before = _fill_ports(guest)
    race, done = Race(guest), {"made": 0, "reset": 0}
    for number in range(int(rounds)):
        grows = [m.EvtchnAllocUnbound(DOMID_SELF, DOM0)] * PORTS_A_ROUND
        ports = [Port(port) for port in range(3, 3 + PORTS_A_ROUND)]
        rings = [message for port in ports for message in (m.EvtchnSend(port), m.EvtchnClose(port))]
        answers = race.ask(grows, [*rings[number % 7 :: 3], m.EvtchnReset(DOMID_SELF), m.EvtchnReset(DOMID_SELF)])
        done["made"] += _done(answers[:PORTS_A_ROUND])
        done["reset"] += _done(answers[-2:])
        _new_port(guest)  # and what came for the others is let go of
    after = _fill_ports(guest)
    return f"made {done['made']} ports, reset {done['reset']} times: room for {before} ports before, {after} after"


def _fill_ports(guest: Guest) -> int:
    """How many there is room for, which there is again behind it."""
    call, made = guest.runtime.hypercalls.call, 0
    call(m.EvtchnReset(DOMID_SELF))
    try:
        while True:
            _new_port(guest)
            made += 1
    except HypercallError as error:
        assert error.errno in (errno.ENOSPC, errno.EMFILE), error
    call(m.EvtchnReset(DOMID_SELF))
    return made


def _new_port(guest: Guest) -> None:
    _, descriptors = guest.runtime.hypercalls.call(m.EvtchnAllocUnbound(DOMID_SELF, DOM0))
    for descriptor in descriptors:
        os.close(descriptor)
