"""One client's connection by socket: bytes to whole messages, and what waits to be sent, both bounded. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from hvd.transport.ids import DomId
from hvd.transport.limits import STORE_BACKLOG_BYTES_MAX, STORE_GUEST_BACKLOG_BYTES_MAX
from hvd.transport.xs_wire import Message, split

STALLED_AT_BYTES = 64 * 1024
"""Of replies and events that its client has not read: nothing more is asked of the store for it until it has."""
KEPT_IN_BYTES = 160
"""What a waiting message takes of memory beside its own bytes: small events without number are a guest's as well."""


class TooFarBehind(Exception):
    """Its client reads too little of what it has asked to be told: what waits would take more than `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self.bytes_max = bytes_max


class Connection:
    """What is known of one client between two of its messages."""

    def __init__(self, domid: DomId, number: int) -> None:
        self.domid = domid
        self.number = number
        """Negative for the host's programs."""
        self.closed = False
        self.queued = False
        """It waits for another turn."""
        self.left_traces = False
        """It has made a call that may have set a watch or opened a transaction."""
        self._inbox = b""
        self._at = self._message_at = 0
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._events: set[bytes] = set()
        """Those in the outbox: one that waits already says nothing new by coming twice (XSA-349)."""

    # ---- what it has said --------------------------------------------------------------------------------------------

    def take_in(self, untrusted: bytes) -> None:
        """More bytes of its stream; call it when `next_message` has given out all there were."""
        self._inbox = untrusted if self._at == len(self._inbox) else self._inbox[self._at :] + untrusted
        self._at = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it has said is left, and nothing waits to be told."""
        return not self._outbox and self._at == len(self._inbox)

    @property
    def has_begun(self) -> bool:
        """Whether there is more of its stream: a message, or a part of one."""
        return self._at < len(self._inbox)

    def next_message(self) -> Message | None:
        """The next whole message; None when there is none yet. PeerFault: what it says is no message."""
        if self._at == len(self._inbox):
            return None
        found = split(self._inbox, self._at)
        if found is None:
            return None
        self._message_at = self._at
        message, self._at = found
        return message

    def begins_with(self, kinds: Collection[int]) -> bool:
        """Whether the next message is of one of these types, as far as its first byte says."""
        return self._at < len(self._inbox) and self._inbox[self._at] in kinds

    def answer_some(self, answer: Callable[[bytes, int], tuple[bytes, int]]) -> None:
        """Have the next messages answered together. It says where the first one begins that it has left."""
        replies, at = answer(self._inbox, self._at)
        if at != self._at:
            self._at = at
            self.add_reply(replies)

    def take_back(self) -> None:
        """The last message is the next one as well."""
        self._at = self._message_at

    # ---- what it is to be told ---------------------------------------------------------------------------------------

    def add_event(self, data: bytes) -> None:
        """A watch event. TooFarBehind when too much waits already."""
        if data not in self._events:
            self._events.add(data)
            self._append(data)

    def add_reply(self, data: bytes, *, before: int | None = None) -> None:
        """A reply, behind all that waits, or at this place."""
        if before is None:
            self._outbox.append(data)
        else:
            self._outbox.insert(before, data)
        self._outbox_bytes += len(data)

    def _append(self, data: bytes) -> None:
        taken, most = self._outbox_bytes + len(data), STORE_BACKLOG_BYTES_MAX
        if self.number > 0:
            taken, most = taken + KEPT_IN_BYTES * (len(self._outbox) + 1), STORE_GUEST_BACKLOG_BYTES_MAX
        if taken > most:
            raise TooFarBehind(most)
        self._outbox.append(data)
        self._outbox_bytes += len(data)

    @property
    def waiting(self) -> int:
        """Messages in the outbox."""
        return len(self._outbox)

    @property
    def is_stalled(self) -> bool:
        """Whether it must read before it is served again."""
        return self._outbox_bytes >= STALLED_AT_BYTES

    def outgoing(self) -> bytes:
        """All that waits."""
        return self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)

    def sent(self, count: int) -> None:
        """So many bytes of it have gone out."""
        self._outbox_bytes -= count
        if not self._outbox_bytes:
            self._outbox.clear()
            self._events.clear()
            return
        while count:
            first = self._outbox.popleft()
            self._events.discard(first)
            if len(first) > count:
                self._outbox.appendleft(first[count:])
                return
            count -= len(first)
