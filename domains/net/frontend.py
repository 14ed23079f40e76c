"""A guest's vif: its handshake with backends that come and go, and the packets that a guest sends and receives.

The packets themselves, their pages and slots, and what is sent again are in transport/native/netfront.hpp.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hvd.domains.device import Frontend, Keys
from hvd.domains.net.tap import TapLink
from hvd.domains.peer_runs import RUNS
from hvd.domains.program.network import Interface
from hvd.domains.runtime import Runtime
from hvd.transport._native import NetFront
from hvd.transport.channels import Endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.protocols.net import (
    GATEWAY_KEY,
    MTU,
    QUEUES_MAX,
    RING_SLOTS,
    RX_REQUEST_SIZE,
    RX_RESPONSE_SIZE,
    TX_REQUEST_SIZE,
    TX_RESPONSE_SIZE,
    chosen_mac,
    parse_mac,
)
from hvd.transport.records import dataclass
from hvd.transport.rings import RING_CHECKS, FrontRing

if TYPE_CHECKING:
    from typing_extensions import Buffer

RING_PAGES = 2
POOL_PAGES = 2 * RING_SLOTS
QUEUE_PAGES = RING_PAGES + POOL_PAGES
SEND_TIMEOUT_S = 30.0
"""How long `send` waits for room, backends' deaths included."""
RECEIVE_BATCH = 256


@dataclass(slots=True)
class Queue:
    """One queue's pages in the vif's extent, its rings, and its channels: one twice, if both rings share it."""

    memory: memoryview
    ref: GrantRef
    tx_port: Port
    tx_endpoint: Endpoint
    rx_port: Port
    rx_endpoint: Endpoint
    tx: FrontRing
    rx: FrontRing

    def make_rings(self, *, checked: bool) -> None:
        """Anew: what a backend broke stays so."""
        self.close_rings()
        self.tx, self.rx = rings(self.memory, checked=checked)
        self.tx.init()
        self.rx.init()

    def close_rings(self) -> None:
        self.tx.close()
        self.rx.close()

    @property
    def keys(self) -> Keys:
        keys = {"tx-ring-ref": str(self.ref), "rx-ring-ref": str(self.ref + 1)}
        if self.tx_port == self.rx_port:
            return keys | {"event-channel": str(self.rx_port)}
        return keys | {"event-channel-tx": str(self.tx_port), "event-channel-rx": str(self.rx_port)}


def rings(memory: memoryview, *, checked: bool = False) -> tuple[FrontRing, FrontRing]:
    """Tx and Rx, on a queue's first pages."""
    return (
        FrontRing(memory[:PAGE_SIZE], TX_REQUEST_SIZE, TX_RESPONSE_SIZE, checked=checked),
        FrontRing(memory[PAGE_SIZE : 2 * PAGE_SIZE], RX_REQUEST_SIZE, RX_RESPONSE_SIZE, checked=checked),
    )


class NetFrontend(Frontend):
    """One vif. A packet is an Ethernet frame without its checksum, 14 bytes at least.

    `send` and `receive` wait; `try_send`, `receive_many` and their like do not. While no backend lives as much is taken
    as fits into a ring (256 pages), and sent by the next one.
    """

    def __init__(self, runtime: Runtime, backend: DomId, keys: Keys) -> None:
        super().__init__(runtime, backend, keys)
        self.devid = int(keys.get("handle", "0"))
        self.name = f"vif{self.devid}"
        self.mac = parse_mac(keys["mac"]) if "mac" in keys else chosen_mac(runtime.domid, self.devid)
        self.mtu = int(keys.get("mtu", MTU))
        """Bytes behind the Ethernet header of what may be sent."""
        self.link_up = True
        """Whether packets are carried. What is sent while they are not is lost, as with a cable that is out."""
        self.on_receive: Callable[[], None] | None = None
        """Called from `wait` when more packets have arrived, in the place of a `receive`; those before stay there."""
        self.on_room: Callable[[], None] | None = None
        """Called after `watch_answers` when the backend has answered, or another one is there."""
        self.offload = keys.get("hvd-offload") == "1"
        """Whether packets may come with blank checksums, and larger than the MTU: for what passes them on as they
        are."""
        self._groups: set[bytes] = set()
        self._fresh = False
        """Whether the rings are empty and nobody was attached to them: those of a backend that has gone are not."""
        self._watches = False
        """Whether the Tx rings are attached to our waiter."""
        self._link: TapLink | None = None
        self._split = keys.get("hvd-channels", "split") == "split"
        queues = min(max(int(keys.get("hvd-queues", 1)), 1), QUEUES_MAX)
        self._pages = runtime.grants.share(backend, queues * QUEUE_PAGES)
        self.queues = [self._make_queue(number) for number in range(queues)]
        memories = [queue.memory[RING_PAGES * PAGE_SIZE :] for queue in self.queues]
        self.front: NetFront | None = NetFront(memories, [queue.ref + RING_PAGES for queue in self.queues])
        self._carrier = f"{keys['backend']}/carrier"
        self._token = runtime.store.watch(self._carrier, self._look_at_link)

    def _make_queue(self, number: int) -> Queue:
        first = number * QUEUE_PAGES
        memory = self._pages.view[first * PAGE_SIZE : (first + QUEUE_PAGES) * PAGE_SIZE]
        rx = self.runtime.alloc_unbound(self.backend, self.guarded(self._collect))
        tx = self.runtime.alloc_unbound(self.backend, self.guarded(self._collect)) if self._split else rx
        return Queue(memory, GrantRef(self._pages.ref + first), *tx, *rx, *rings(memory))

    # ---- the handshake (see Frontend) --------------------------------------------------------------------------------

    def publish(self, backend_keys: Keys) -> Keys:
        checked = backend_keys.get(RING_CHECKS) == "1"
        for queue in self.queues:
            queue.make_rings(checked=checked)
        self._fresh = True
        blank = "0" if self.offload else "1"
        keys = {
            "request-rx-copy": "1",
            "feature-rx-notify": "1",
            "feature-sg": "1",
            "feature-no-csum-offload": blank,
            RING_CHECKS: str(int(checked)),
            RUNS: str(self._pages.ref),
        }
        if self.offload:
            keys |= dict.fromkeys(("feature-gso-tcpv4", "feature-gso-tcpv6", "feature-ipv6-csum-offload"), "1")
        if self.keys.get("hvd-multicast-control") == "1":
            keys["request-multicast-control"] = "1"
        if len(self.queues) == 1:
            return keys | self.queues[0].keys
        below = {f"queue-{n}/{key}": value for n, queue in enumerate(self.queues) for key, value in queue.keys.items()}
        return keys | {"multi-queue-num-queues": str(len(self.queues))} | below

    def published(self, backend_keys: Keys) -> None:
        """The offer says all: what was not answered, and every buffer, waits in the rings for the next backend."""
        if backend_keys.get("feature-rx-copy") == "1":
            self.connected(backend_keys)

    def connected(self, backend_keys: Keys) -> None:
        if self.front is None or not self._fresh:
            return
        self._fresh = False
        for queue in self.queues:
            self.runtime.waiter.attach_ring(queue.rx_port, queue.rx)
        self.front.attach([(q.tx, q.rx, q.tx_endpoint, q.rx_endpoint) for q in self.queues])
        for group in self._groups:
            self.front.change_group(group, True)
        if self.on_room is not None:
            self.on_room()

    def backend_gone(self) -> None:
        if self.front is not None and self.front.attached:
            with contextlib.suppress(PeerFault):
                self.front.collect()  # what it had brought before it died counts
            self.forget_answers()
            for queue in self.queues:
                self.runtime.waiter.detach_ring(queue.rx_port, queue.rx)
            self.front.detach()

    def _look_at_link(self, _: str) -> None:
        """An offer writes it too, and is answered first."""
        self.runtime.store.afterwards(self._read_link)

    def _read_link(self) -> None:
        """netif.h: what does not say otherwise is up."""
        self.link_up = self.runtime.store.read_text(self._carrier) != "0"

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self.backend_gone()
        self.front = None
        self.runtime.store.unwatch(self._token)
        for queue in self.queues:
            queue.close_rings()
            for port in {queue.rx_port, queue.tx_port}:
                self.runtime.close_port(port)
            queue.memory.release()
        self.queues = []
        self.runtime.grants.give_back(self._pages)

    # ---- what a guest that is a program has of it (see domains/program/network.py) -----------------------------------

    @property
    def interface(self) -> Interface:
        """eth0 of vif 0, with the addresses that the toolstack gave it."""
        addresses, gateways = (self.keys.get(key, "").split() for key in ("ip", GATEWAY_KEY))
        return Interface(f"eth{self.devid}", self.mac, self.mtu, addresses, self.offload, gateways)

    def pump(self, descriptor: int) -> None:
        """Join it to a TAP device until `close`: of one queue's, virtio header of 10 bytes. LocalError of several."""
        self._link = TapLink(self, [descriptor])

    # ---- what a guest does -------------------------------------------------------------------------------------------

    def try_send(self, packet: Buffer) -> bool:
        """Send a packet, which is copied; False if there is no room now."""
        return bool(self._ask(lambda front: front.send(packet)))

    def send(self, packet: Buffer) -> None:
        """Send a packet; waits for room. OSError ETIMEDOUT when none comes."""
        if not self.try_send(packet):
            self._wait_for_room(lambda: self.try_send(packet))

    def try_send_many(self, packets: Sequence[Buffer], first: int = 0) -> int:
        """Send packets in order, from index `first` on, for one call's price; how many there was room for."""
        return int(self._ask(lambda front: front.send_many(packets, first)))

    def send_many(self, packets: Sequence[Buffer]) -> None:
        """Send packets in order; waits for room."""
        self._send_all(len(packets), lambda first: self.try_send_many(packets, first))

    def try_send_run(self, packets: Buffer, size: int, first: int = 0) -> int:
        """`try_send_many` of packets of one size that lie in one buffer, one after the other."""
        return int(self._ask(lambda front: front.send_run(packets, size, first)))

    def send_run(self, packets: Buffer, size: int) -> None:
        """Send packets of one size that lie in one buffer; waits for room."""
        self._send_all(memoryview(packets).nbytes // size, lambda first: self.try_send_run(packets, size, first))

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """The next packet; waits for it, until the timeout (None)."""
        until = None if timeout_s is None else self.runtime.system_time_ns() + int(timeout_s * 1e9)
        while not (packets := self.receive_many(1)):
            left = None if until is None else (until - self.runtime.system_time_ns()) / 1e9
            if left is not None and left <= 0:
                return None
            self.runtime.wait(left)
        return packets[0]

    def receive_many(self, limit: int = RECEIVE_BATCH) -> list[bytes]:
        """Those that are there, so many at most."""
        self._ask(NetFront.collect)
        packets: list[bytes] = self._ask(lambda front: front.receive_many(limit))
        return packets

    def discard(self) -> int:
        """Drop those that are there; how many."""
        self._ask(NetFront.collect)
        return int(self._ask(NetFront.discard))

    def join(self, group: bytes) -> None:
        """Ask for a multicast group's packets: with the key hvd-multicast-control no others come."""
        self._groups.add(group)
        self._change_group(group, joins=True)

    def leave(self, group: bytes) -> None:
        """Ask for them no more."""
        self._groups.discard(group)
        self._change_group(group, joins=False)

    def watch_answers(self) -> None:
        """From now on what the backend answers wakes us, as packets do: for who waits for room."""
        if not self._watches and self.front is not None and self.front.attached:
            self._watches = True
            for queue in self.queues:
                self.runtime.waiter.attach_ring(queue.tx_port, queue.tx)

    def forget_answers(self) -> None:
        """Whoever has room is woken for packets alone."""
        if self._watches:
            self._watches = False
            for queue in self.queues:
                self.runtime.waiter.detach_ring(queue.tx_port, queue.tx)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _ask(self, act: Callable[[NetFront], Any]) -> Any:
        """OSError ENODEV when the vif was taken away. A backend that broke the protocol is let go of, and it goes
        on."""
        if self.front is None:
            raise OSError(errno.ENODEV, f"{self.name}: {os.strerror(errno.ENODEV)}: it was detached")
        try:
            return act(self.front)
        except PeerFault as fault:
            self.on_fault(fault)
            return act(self.front)

    def _change_group(self, group: bytes, *, joins: bool) -> None:
        def change() -> bool:
            return bool(self._ask(lambda front: front.change_group(group, joins)))

        if not change():
            self._wait_for_room(change)

    def _send_all(self, count: int, send: Callable[[int], int]) -> None:
        sent = send(0)

        def go_on() -> bool:
            nonlocal sent
            sent += send(sent)
            return sent == count

        if sent < count:
            self._wait_for_room(go_on)

    def _wait_for_room(self, again: Callable[[], bool]) -> None:
        until = self.runtime.system_time_ns() + int(1e9 * SEND_TIMEOUT_S)
        try:
            while not again():
                self.watch_answers()
                if self.runtime.system_time_ns() > until:
                    raise OSError(errno.ETIMEDOUT, f"{self.name}: no room for a packet for {SEND_TIMEOUT_S:g} s")
                self.runtime.wait(1.0)
        finally:
            self.forget_answers()

    def _collect(self) -> None:
        if self.front is None:
            return
        self.front.collect()
        if self.on_receive is not None and self.front.has_arrived:
            self.on_receive()
        if self.on_room is not None and self._watches:
            self.on_room()
