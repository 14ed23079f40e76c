"""One epoll set: which descriptor wakes which handler."""

from __future__ import annotations

import select
from collections.abc import Callable

from hvd.broker.spin import Spin


class Poller:
    """Level-triggered; a descriptor has one handler for reading and, while asked for, one for writing."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._spin = Spin()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor is readable."""
        self._readers[descriptor] = handler
        self._update(descriptor)

    def watch_writable(self, descriptor: int, handler: Callable[[], None] | None) -> None:
        """Call the handler whenever the descriptor is writable; None: no more."""
        if handler is None and descriptor not in self._writers:
            return
        if handler is None:
            del self._writers[descriptor]
        else:
            self._writers[descriptor] = handler
        self._update(descriptor)

    def awaits_room(self, descriptor: int) -> bool:
        """Whether a handler waits for it to become writable."""
        return descriptor in self._writers

    def unwatch_readable(self, descriptor: int) -> None:
        """Forget its reader; nothing if it has none."""
        if self._readers.pop(descriptor, None) is not None:
            self._update(descriptor)

    def unwatch(self, descriptor: int) -> None:
        """Forget it; call this before it is closed."""
        self._readers.pop(descriptor, None)
        self._writers.pop(descriptor, None)
        self._update(descriptor)

    def poll(self, timeout_s: float | None) -> int:
        """Wait and run the handlers of what is ready; of how many descriptors."""
        ready = self._spin.wait(self._epoll.poll, timeout_s) if timeout_s else self._epoll.poll(timeout_s)
        for descriptor, events in ready:
            if events & ~select.EPOLLOUT and descriptor in self._readers:
                self._readers[descriptor]()
            if events & ~select.EPOLLIN and descriptor in self._writers:  # a hang-up too: the write tells what is wrong
                self._writers[descriptor]()
        return len(ready)

    def _update(self, descriptor: int) -> None:
        reading = select.EPOLLIN if descriptor in self._readers else 0
        writing = select.EPOLLOUT if descriptor in self._writers else 0
        events = reading | writing
        if not events:
            try:
                self._epoll.unregister(descriptor)
            except (FileNotFoundError, OSError):
                return
            return
        try:
            self._epoll.register(descriptor, events)
        except FileExistsError:
            self._epoll.modify(descriptor, events)
