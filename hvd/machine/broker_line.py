"""The machine's line to the broker that lives: what it is told, in order, and never by waiting for it."""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Any

from hvd.transport.descriptors import send_message

OUTBOX_MAX = 4096


class BrokerLine:
    """One broker's; its successor, which is told everything anew, has its own."""

    def __init__(self, link: socket.socket, epoll: select.epoll) -> None:
        self._link = link
        self._epoll = epoll
        self._outbox: deque[list[Any]] = deque()

    def tell(self, message: list[Any]) -> bool:
        """Say it now or when the broker reads; False: it has let so much wait that it is stuck."""
        self._outbox.append(message)
        self.flush()
        return len(self._outbox) <= OUTBOX_MAX

    def flush(self) -> None:
        """Send what waits, as far as there is room, and be woken when there is more."""
        if self._link.fileno() < 0:
            return
        try:
            while self._outbox:
                send_message(self._link, self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it is dying
            self._outbox.clear()
            return
        self._epoll.modify(self._link.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0))
