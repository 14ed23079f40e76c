"""Event channels as two processes share them: a channel page, a pipe per direction, an endpoint for each side.

The broker makes them (`create_channel`) and hands each side one end; a domain opens its end (`open_endpoint`), binds it
to its `Waiter` under the port number, and waits there for all its ports at once.
"""

import fcntl
import os
import struct
from typing import Final

from hvd.transport._native import Endpoint, EndpointStatistics, Waiter, WaiterStatistics
from hvd.transport.pages import PAGE_SIZE, Extent, create_extent, seal_seals
from hvd.transport.records import dataclass

__all__ = [
    "ChannelDescriptors",
    "End",
    "Endpoint",
    "EndpointStatistics",
    "Waiter",
    "WaiterStatistics",
    "create_channel",
    "events_sent",
    "is_closed",
    "is_pending",
    "open_endpoint",
]

# ChannelLine in native/layouts.hpp: each side's line is 128 bytes long; its first word says whether an event waits for
# the receiver, the third on which CPU that is, the fourth whether its sender has gone, and behind that stands how many
# events its sender has sent.
_LINE_SIZE: Final = 128
_CPU_OFFSET: Final = 8
_SENT: Final = struct.Struct("<Q")
_PENDING: Final = struct.Struct("<I")
_CLOSED: Final = struct.Struct("<I")
_CLOSED_OFFSET: Final = 12
_SENT_OFFSET: Final = 16
_CPU_UNKNOWN: Final = (-1).to_bytes(4, "little", signed=True)


@dataclass(frozen=True, slots=True)
class End:
    """The two descriptors of one side: the read end of what it receives, the write end of what it sends."""

    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class ChannelDescriptors:
    """All five descriptors of a channel; `ends[side]` goes to that side, together with the page."""

    page_fd: int
    ends: tuple[End, End]

    def close(self) -> None:
        """Closes all five. Once, and only while none has been given away by number."""
        for fd in (self.page_fd, *(fd for end in self.ends for fd in (end.rx, end.tx))):
            os.close(fd)


def create_channel() -> ChannelDescriptors:
    """A fresh channel page and its pipes. OSError when descriptors or memory run out; nothing is leaked then."""
    opened: list[int] = []
    try:
        page_fd = create_extent(1, "hvd-channel")
        opened.append(page_fd)
        for side in (0, 1):
            os.pwrite(page_fd, _CPU_UNKNOWN, side * _LINE_SIZE + _CPU_OFFSET)
        seal_seals(page_fd)
        for _ in range(2):
            opened.extend(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
            # One byte is all that is ever in it: the smallest pipe, because a user's pipe pages are limited.
            fcntl.fcntl(opened[-1], fcntl.F_SETPIPE_SZ, PAGE_SIZE)
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    _, to_0, from_1, to_1, from_0 = opened
    return ChannelDescriptors(page_fd, (End(rx=to_0, tx=from_0), End(rx=to_1, tx=from_1)))


def events_sent(page_fd: int, side: int) -> int:
    """How many events this side says it has sent since it opened its end."""
    (sent,) = _SENT.unpack(os.pread(page_fd, _SENT.size, (1 - side) * _LINE_SIZE + _SENT_OFFSET))
    return int(sent)


def is_closed(page_fd: int, side: int) -> bool:
    """Whether this side is told that the other one is gone, who may say so at any time."""
    (closed,) = _CLOSED.unpack(os.pread(page_fd, _CLOSED.size, side * _LINE_SIZE + _CLOSED_OFFSET))
    return bool(closed)


def is_pending(page_fd: int, side: int) -> bool:
    """Whether an event was raised at this side that it has not taken."""
    (pending,) = _PENDING.unpack(os.pread(page_fd, _PENDING.size, side * _LINE_SIZE))
    return bool(pending)


def open_endpoint(page_fd: int, side: int, rx: int, tx: int) -> Endpoint:
    """The endpoint of one side. It owns `rx` and `tx` (-1: that direction is not used) from here on; `page_fd` stays
    the caller's and may be closed. PeerFault: the page is no sealed page. On an error nothing has been taken over."""
    return Endpoint(Extent.map(page_fd, 1, writable=True).view, side, rx, tx)
