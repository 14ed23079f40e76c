"""Connections of every kind: whose turn it is, what is sent to whom, when one is over. How bytes travel is a line's.

A connection has a turn of a few messages whenever it has said something, and then the next one has. Events and replies
wait in it until its line takes them; who does not read is first not served any more, then closed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from hvd.broker.store import WatchEvent
from hvd.broker.xenstored.connection import Connection, TooFarBehind
from hvd.transport import xs_wire
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DomId
from hvd.transport.xs_wire import Message, Type

MESSAGES_PER_TURN = 32
TURN_NS = 200_000
"""A turn is over behind the message in which it has lasted so long: others wait, and some messages cost more."""
PLAIN: Final = (int(Type.READ), int(Type.WRITE))
"""What may be answered many at a time."""
AT_ONCE_BYTES = 512
"""A turn of so little is short in any case."""

LATER: Final = (-1, b"")
"""The request takes several turns: it is to be asked once more in the next. Nothing has been changed."""
Log = Callable[[str, DomId], None]
Busy = Callable[[DomId], bool]
"""Whether a domain has to wait, as its last request is not quite done."""
OnWork = Callable[[DomId], None]
"""Told for which domain we have worked: for each of its requests, and whenever it wakes us, whatever comes of it."""


class Line(Protocol):
    """How the bytes of one connection travel. PeerFault: the other end broke it; EOFError: it has gone."""

    pulls: bool
    """Whether it is asked for more when all is served; else it says itself, again and again, that there is more."""

    def receive(self) -> bytes:
        """What has come; b"" for nothing at the moment."""

    def send(self, data: bytes) -> int:
        """How much of it could be sent at the moment."""

    def expect(self, *, reading: bool, writing: bool) -> None:
        """What it is to wake its connection for."""

    def close(self, fault: PeerFault | None) -> None:
        """Nothing more comes or goes; `fault` is why, if it is the other end's."""


class Requests(Protocol):
    """Has requests carried out."""

    def serve(self, connection: Connection, message: Message) -> tuple[int, bytes] | None:
        """Type and payload of the reply, LATER, or None when its domain is gone."""

    def answer_plain(self, untrusted: bytes, at: int) -> tuple[bytes, int]:
        """The replies to the host's plain READs and WRITEs from a place of its stream on, which are recorded, and where
        anything else begins."""

    def record(self) -> bool:
        """A turn is over: only behind this may what was carried out in it be answered.

        Whether nobody has anything to do now who had not before.
        """


class StoreDoors:
    """All connections of one broker."""

    def __init__(
        self, busy: Busy, log: Log, clock_ns: Callable[[], int] = time.monotonic_ns, *, on_work: OnWork
    ) -> None:
        self._busy = busy
        self._log = log
        self.on_work = on_work
        self._clock_ns = clock_ns
        self._lines: dict[Connection, Line] = {}
        self._by_number: dict[tuple[DomId, int], Connection] = {}
        self._serving: Connection | None = None
        self._unflushed: set[Connection] = set()
        self._ready: deque[Connection] = deque()
        """Those that have said more than they had a turn for."""
        self._ended: list[Connection] = []
        self.plain_turns = 0
        """Turns that left nobody anything to do, counted by whoever sets it to 0."""

    def serve_by(self, requests: Requests) -> None:
        """Before the first of them comes."""
        self._carry_out, self._answer_plain, self._record = requests.serve, requests.answer_plain, requests.record

    # ---- coming and going --------------------------------------------------------------------------------------------

    def open(self, connection: Connection, line: Line) -> None:
        """From now on it is served."""
        self._lines[connection] = line
        self._by_number[connection.domid, connection.number] = connection
        line.expect(reading=True, writing=False)

    def close(self, connection: Connection, fault: PeerFault | None = None) -> None:
        """It is over. Its watches and transactions are the caller's to end: `take_ended` names it."""
        line = self._lines.pop(connection)
        connection.closed = True
        del self._by_number[connection.domid, connection.number]
        self._unflushed.discard(connection)
        line.close(fault)
        if connection.left_traces:
            self._ended.append(connection)

    def disconnect(self, domid: DomId) -> None:
        """End a domain's own connections; those of the host's programs are dom0's, and stay."""
        for connection in [each for each in self._lines if each.domid == domid and each.number > 0]:
            self.close(connection)

    def take_ended(self) -> list[Connection]:
        """Connections that have ended since the last call, and may have watches and transactions."""
        ended, self._ended = self._ended, []
        return ended

    def _end(self, connection: Connection, fault: PeerFault) -> None:
        self._log(f"its connection to XenStore is closed: {fault}", connection.domid)
        self.close(connection, fault)

    # ---- requests ----------------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether somebody waits for another turn."""
        return bool(self._ready)

    def serve_ready(self) -> None:
        """A turn for each that waits for one."""
        for _ in range(len(self._ready)):
            connection = self._ready.popleft()
            connection.queued = False
            if not connection.closed:
                self._serve(connection)

    def readable(self, connection: Connection) -> None:
        """Its line has something for us. What is there already comes first."""
        if connection.queued or connection.closed:
            return
        if connection.number > 0:
            self.on_work(connection.domid)
        line = self._lines[connection]
        try:
            untrusted = line.receive()
            if not untrusted or self._answer_at_once(connection, line, untrusted):
                return
        except EOFError:
            self.close(connection)
            return
        except PeerFault as fault:
            self._end(connection, fault)
            return
        self._serve(connection)

    def _answer_at_once(self, connection: Connection, line: Line, untrusted: bytes) -> bool:
        """Take in what has come; whether that was all, and is answered: little by a program of the host's that waits.

        It is a turn without all that has nothing to do in it.
        """
        alone = connection.number < 0 and len(untrusted) <= AT_ONCE_BYTES and connection.is_idle
        if not alone or untrusted[0] not in PLAIN or self._busy(connection.domid):
            connection.take_in(untrusted)
            return False
        replies, at = self._answer_plain(untrusted, 0)
        sent = line.send(replies) if replies else 0
        if sent < len(replies):
            connection.add_reply(replies[sent:])
        elif at == len(untrusted):
            self.plain_turns += 1
            return True
        connection.take_in(untrusted[at:])
        return False

    def _serve(self, connection: Connection) -> None:
        """As many of its messages as a turn has; then what there is to send goes out at once."""
        self._serving = connection
        more = False
        try:
            more = self._take_turn(connection)
        except PeerFault as fault:
            self._end(connection, fault)
        finally:
            plain = self._record()
            self._serving = None
        if not connection.closed:
            self._flush(connection)
        if connection.closed:
            return
        if more and not connection.is_stalled:
            self._queue(connection)
        elif plain and not more:
            self.plain_turns += 1

    def _take_turn(self, connection: Connection) -> bool:
        """Whether there may be more where these came from."""
        if connection.is_stalled or self._busy(connection.domid):
            return True
        if connection.number < 0 and connection.begins_with(PLAIN):
            connection.answer_some(self._answer_plain)
            if not connection.has_begun:
                return False
        line, over_ns = self._lines[connection], self._clock_ns() + TURN_NS
        for _ in range(MESSAGES_PER_TURN):
            message = connection.next_message()
            if message is not None:
                if not self._answer(connection, message):
                    connection.take_back()
                    return True
            elif not (line.pulls and self._pull(connection, line)):
                return False
            if connection.closed or not (connection.has_begun or line.pulls):
                return False
            if self._clock_ns() >= over_ns or connection.is_stalled or self._busy(connection.domid):
                break
        return True

    def _pull(self, connection: Connection, line: Line) -> bool:
        untrusted = line.receive()
        connection.take_in(untrusted)
        return bool(untrusted)

    def _queue(self, connection: Connection) -> None:
        if not connection.queued:
            connection.queued = True
            self._ready.append(connection)

    def _answer(self, connection: Connection, message: Message) -> bool:
        """Whether that is done; else it is to be asked once more."""
        if connection.number > 0:
            self.on_work(connection.domid)
        before = connection.waiting
        reply = self._carry_out(connection, message)
        if reply is LATER:
            return False
        if connection.closed:
            return True
        if reply is None:
            self.close(connection)
            return True
        data = xs_wire.pack(reply[0], message.req_id, message.tx_id, reply[1])
        first = message.type == Type.WATCH  # all other replies come behind the events that the request has fired
        connection.add_reply(data, before=before if first else None)
        return True

    # ---- what goes out -----------------------------------------------------------------------------------------------

    def add_event(self, event: WatchEvent) -> None:
        """A watch of a connection has fired; it goes out at the next `flush`. Nothing if the connection has gone."""
        connection = self._by_number.get((event.domid, event.connection))
        if connection is None:
            return
        payload = xs_wire.strings(event.path.encode(), event.token.encode("utf-8", "surrogateescape"))
        try:
            connection.add_event(xs_wire.pack(Type.WATCH_EVENT, 0, 0, payload))
        except TooFarBehind as behind:
            text = f"{behind.bytes_max} bytes of watch events wait for it, and it does not read"
            self._end(connection, PeerFault(text))
        else:
            self._unflushed.add(connection)

    def flush(self) -> None:
        """Send what events there are."""
        if self._unflushed:
            for connection in self._unflushed - {self._serving}:
                self._flush(connection)

    def writable(self, connection: Connection) -> None:
        """Its line takes more. Whoever was not served because it did not read is served again."""
        if connection.closed:
            return
        stalled = connection.is_stalled
        self._flush(connection)
        if stalled and not connection.closed and not connection.is_stalled:
            self._queue(connection)

    def _flush(self, connection: Connection) -> None:
        self._unflushed.discard(connection)
        if not connection.waiting:
            return
        line = self._lines[connection]
        try:
            connection.sent(line.send(connection.outgoing()))
        except EOFError:
            self.close(connection)
        except PeerFault as fault:
            self._end(connection, fault)
        else:
            line.expect(reading=not connection.is_stalled, writing=bool(connection.waiting))
