"""What a domain and its broker say of hypercalls, in the page of its upcall channel: nobody is woken by it.

u64 words behind the channel's own (native/layouts.hpp). The broker writes the first: its number, as it takes the domain
over. The domain writes the others: whether a hypercall of its is open, the last watch event that it has taken up, and
the last hypercall whose descriptors it has received.

A domain says that it asks before it looks who serves it, and a broker says that it serves before it looks who asks;
each access is a fence. So one of them sees what the other has said: a domain that asks a dead broker is told so by the
new one, and one that asks nothing finds out with its next hypercall, and not before.
"""

from __future__ import annotations

from hvd.transport._native import load_word, store_word
from hvd.transport.pages import Extent

SERVES, ASKS, SEEN, RECEIVED = 256, 264, 272, 280


class CallWords:
    """Either end's view of them; `close` unmaps it."""

    def __init__(self, page_fd: int) -> None:
        """`page_fd`: the channel page. It may be closed afterwards."""
        self._extent = Extent.map(page_fd, 1, writable=True)
        self._page = self._extent.view

    # ---- the domain's ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A hypercall is open from here on."""
        store_word(self._page, ASKS, 1)

    def end(self) -> None:
        """It has been answered, or given up."""
        store_word(self._page, ASKS, 0)

    def see(self, event: int) -> None:
        """This watch event is being seen to, and all before it have been."""
        store_word(self._page, SEEN, event)

    def receive(self, sequence: int) -> None:
        """The descriptors that answer this hypercall have come."""
        store_word(self._page, RECEIVED, sequence)

    @property
    def broker(self) -> int:
        """The number of the one that serves us."""
        return load_word(self._page, SERVES)

    # ---- the broker's ------------------------------------------------------------------------------------------------

    def serve(self, broker: int) -> None:
        """From here on this broker does."""
        store_word(self._page, SERVES, broker)

    @property
    def untrusted_asks(self) -> bool:
        """Whether it has a hypercall open. A domain that lies waits for its own answers."""
        return load_word(self._page, ASKS) != 0

    @property
    def untrusted_seen(self) -> int:
        """The last event that it has taken up. A domain that lies loses its own events."""
        return load_word(self._page, SEEN)

    @property
    def untrusted_received(self) -> int:
        """The last hypercall whose descriptors it has. A domain that lies lacks its own, or is sent them twice."""
        return load_word(self._page, RECEIVED)

    def close(self) -> None:
        self._extent.close()
