"""A request by XenStore's wire protocol, from any door: carried out if its domain lives, a command journaled.

Writes of the host's programs that nobody watches are one record together, as many as have come in one turn of their
connection: none is answered before that, and nobody else is served meanwhile.
"""

from __future__ import annotations

import errno
import time
import zlib
from typing import Any

from hvd.broker.domain import ACTING
from hvd.broker.ledger import LEFT_BY_ANYBODY, LEFT_BY_HOST, Ledger
from hvd.broker.sessions import store_session
from hvd.broker.state import STORE_CALL, STORE_STREAM, State
from hvd.broker.world import World
from hvd.broker.xenstored.connection import Connection
from hvd.broker.xenstored.requests import answer, is_command
from hvd.transport.xs_wire import Message, Type, error_payload


class StoreRequests:
    """Of all connections of one broker."""

    def __init__(self, state: State, ledger: Ledger, world: World) -> None:
        self._state, self._ledger, self._world = state, ledger, world
        self._unrecorded: list[Any] = []
        """A command that is to be journaled, and may get further requests of the same turn."""
        self._plain = True
        """What has been carried out in this turn is at most a value that nobody watches."""

    def answer_plain(self, untrusted: bytes, at: int) -> tuple[bytes, int]:
        """The replies to the host's READs and WRITEs that come one behind the other, and where anything else begins.

        Writes are in the journal as they came, when this returns. Nobody hears of them, so there is nothing to settle.
        """
        hypervisor = self._state.hypervisor
        if hypervisor.store_log or hypervisor.leaving:  # of what leaves, each change may be the one that is waited for
            return b"", at
        if not self._ledger.has_room(self._state, LEFT_BY_HOST):
            return b"", at
        now_ns = time.monotonic_ns()
        replies, end, wrote = hypervisor.store.answer_plain(untrusted, at)
        if wrote:
            hypervisor.events.now_ns = now_ns
            self._ledger.record(self._state, [STORE_STREAM, now_ns, untrusted[at:end]], now_ns)
        return replies, end

    def serve(self, connection: Connection, message: Message) -> tuple[int, bytes] | None:
        """Its reply's type and payload, for after `record`; None when its domain does not live any more."""
        hypervisor, domid = self._state.hypervisor, connection.domid
        if hypervisor.store_log:
            self._plain = False
            text = f"store request {message.type} {message.tx_id} {message.payload[:80]!r}"
            self._world.publisher.log(text, domid=domid)
        if connection.number < 0:
            return self._carry_out(connection, message)
        self._plain = False
        domain = hypervisor.domains.get(domid)
        if domain is None or domain.life not in ACTING or not hypervisor.store.is_introduced(domid):
            return None
        self._world.upcalls.hear_first(domain)
        number = zlib.crc32(message.payload, message.type)  # the same request has the same one, by any connection
        self._ledger.open_intent(store_session(domid, domain.incarnation), number)
        reply = self._carry_out(connection, message)
        self._record()
        self._ledger.close_intent()
        return reply

    def _carry_out(self, connection: Connection, message: Message) -> tuple[int, bytes]:
        if not is_command(message):
            reply = answer(self._state.hypervisor, connection.domid, connection.number, message)
            self._plain = self._plain and reply[0] == message.type
            return reply
        domid, number = connection.domid, connection.number
        if not self._ledger.has_room(self._state, LEFT_BY_HOST if number < 0 else LEFT_BY_ANYBODY):
            return Type.ERROR, error_payload(errno.ENOSPC)
        connection.left_traces = True
        if not self._unrecorded:
            self._unrecorded = [STORE_CALL, time.monotonic_ns(), domid, number]
        command = self._unrecorded
        kind, _, tx, payload = message
        reply = self._state.store_call(domid, number, message, command[1])
        command += (kind, tx, payload)
        hypervisor = self._state.hypervisor
        if kind != Type.WRITE or reply[0] != kind or hypervisor.has_store_news or hypervisor.store.has_unsettled:
            self._plain = False
            self._state.hypervisor.collect_store_events()
            self._record()
        return reply

    def record(self) -> bool:
        """What was carried out is in the journal when this returns, and whom it concerns hears of it.

        Whether that leaves nobody anything to do.
        """
        self._record()
        plain, self._plain = self._plain, True
        return plain

    def _record(self) -> None:
        command = self._unrecorded
        if command:
            self._unrecorded = []
            self._ledger.record(self._state, command, command[1])
            self._world.settle()
