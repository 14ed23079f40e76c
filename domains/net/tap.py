"""A vif and a TAP device as one: what either brings, the other gets, as long as the vif is there.

Whoever made the device (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, and the offloads TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6 if
the vif's key hvd-offload is 1) hands over its descriptor, which does not block. The packets themselves go through
transport/native/net_tap.hpp. What the device sends while no backend lives waits in the rings, then in the device's
queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from hvd.transport._native import TapCounters, TapEnd, TapPump
from hvd.transport.errors import LocalError

if TYPE_CHECKING:
    from hvd.domains.net.frontend import NetFrontend

VNET_HEADER_BYTES = 10
"""What a TAP device has unless TUNSETVNETHDRSZ said otherwise."""


class TapLink:
    """The link, from now to `close`. It takes the place of the vif's `on_receive` and `on_room`."""

    def __init__(self, vif: NetFrontend, descriptors: Sequence[int], header_bytes: int = VNET_HEADER_BYTES) -> None:
        """One descriptor for each queue of the vif (IFF_MULTI_QUEUE), which stay the caller's."""
        if vif.front is None or len(descriptors) != len(vif.queues):
            queues = len(vif.queues)
            raise LocalError(f"{vif.name} has {queues} queues, and as many descriptors: not {len(descriptors)}")
        self._vif = vif
        self._runtime = vif.runtime
        self._descriptors = tuple(descriptors)
        self._pumps = [TapPump(vif.front, n, fd, header_bytes) for n, fd in enumerate(descriptors)]
        self._tokens: dict[int, int] = {}
        """Of the descriptors that are watched, by queue."""
        vif.on_receive, vif.on_room = self._to_tap, self._go_on
        self._attach_turns()
        for number in range(len(descriptors)):
            self._watch(number)
        self._to_tap()

    def _attach_turns(self) -> None:
        """What arrives goes on without Python. Not on a channel of both rings: it tells of room too."""
        for queue, pump in zip(self._vif.queues, self._pumps, strict=True):
            if queue.rx_port != queue.tx_port:
                self._runtime.waiter.attach_turn(queue.rx_port, pump, TapPump.RING)

    def close(self) -> None:
        """Neither gets what the other brings any more. Idempotent."""
        for number in list(self._tokens):
            self._unwatch(number)
        for queue in self._vif.queues:
            self._runtime.waiter.detach_turn(queue.rx_port)
        self._pumps = []
        self._vif.on_receive = self._vif.on_room = None
        self._vif.forget_answers()

    def counters(self) -> list[TapCounters]:
        """Of each queue."""
        return [pump.counters() for pump in self._pumps]

    def _watch(self, number: int) -> None:
        handler = self._vif.guarded(partial(self._to_network, number))
        self._tokens[number] = self._runtime.watch_fd(self._descriptors[number], handler)
        self._runtime.waiter.attach_turn(self._tokens[number], self._pumps[number], TapPump.DEVICE)

    def _unwatch(self, number: int) -> None:
        self._runtime.unwatch_fd(self._tokens.pop(number))

    def _to_network(self, number: int) -> None:
        """A descriptor with more to say is ready again. One for which there is no room is left alone until there is.

        One whose device somebody has removed would be ready for ever, and has nothing to say.
        """
        if self._vif.front is None:
            self.close()
            return
        end = self._pumps[number].to_network()
        if end in (TapEnd.NO_ROOM, TapEnd.GONE):
            self._unwatch(number)
        if end is TapEnd.NO_ROOM:
            self._vif.watch_answers()

    def _go_on(self) -> None:
        """The backend has answered, or there is another one."""
        self._vif.forget_answers()
        for number in range(len(self._pumps)):
            if number not in self._tokens:
                self._watch(number)

    def _to_tap(self) -> None:
        for queue, pump in zip(self._vif.queues, self._pumps, strict=False):
            if pump.to_tap():
                self._runtime.raise_again(queue.rx_port)
