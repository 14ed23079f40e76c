"""The driver domain's end of a vif: its features, its frontend's rings and grants, and its port in the domain's switch.

Packets go through transport/native/net_switch.hpp, a bounded number at a time, without Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hvd.domains.attaching import Attached
from hvd.domains.device import NUMBER_DIGITS_MAX, Backend, Keys, number_in
from hvd.domains.grants import MappedPages
from hvd.domains.net.settings import VifSettings, link_up, rate_in, settings_in
from hvd.domains.net.switch import VifSwitch, switch_of
from hvd.domains.peer_runs import PeerRuns, named_runs
from hvd.domains.runtime import Runtime
from hvd.transport._native import NetEnd, NetPort, NetTurn
from hvd.transport.channels import Endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import GRANT_REF_MAX, DomId, GrantRef, Port
from hvd.transport.protocols.net import (
    CHANGING_KEYS,
    LINK_KEY,
    QUEUES_MAX,
    RX_REQUEST_SIZE,
    RX_RESPONSE_SIZE,
    TX_REQUEST_SIZE,
    TX_RESPONSE_SIZE,
)
from hvd.transport.records import replace
from hvd.transport.rings import RING_CHECKS, BackRing

PORT_MAX = 131_071
MAPPINGS_MAX = 64
"""Runs of a frontend's grants that one vif keeps mapped, its rings not counted."""
FEATURES = (
    "feature-rx-copy", "feature-rx-notify", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6",
    "feature-ipv6-csum-offload", "feature-split-event-channels", "feature-multicast-control",
)  # fmt: skip


class NetBackend(Backend):
    """One vif."""

    CHANGING = CHANGING_KEYS

    def __init__(self, runtime: Runtime, frontend: DomId, keys: Keys) -> None:
        super().__init__(runtime, frontend, keys)
        self._settings: VifSettings | None = None
        self._connection: Connection | None = None
        self.credit: tuple[float, int] | None = None
        """What its frontend's last connection has left of its rate: whoever attaches again has no more."""

    def features(self) -> Keys:
        self._settings = settings_in(self.keys, self.frontend)
        offer = dict.fromkeys((*FEATURES, RING_CHECKS), "1") | {"feature-dynamic-multicast-control": "0"}
        return offer | {"multi-queue-max-queues": str(QUEUES_MAX), "carrier": str(int(self._settings.link_up))}

    def attach(self, untrusted_keys: Keys) -> Keys:
        assert self._settings is not None
        self._connection = Connection(self, self._settings)
        self._connection.open(untrusted_keys)
        self._connection.serve_all()  # what the rings hold has waited since our predecessor's death
        return {}

    def detach(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def changed(self, name: str, value: str) -> None:
        """Its link goes up or down, or it has another rate: from now on, for every connection to come too."""
        if self._settings is not None:
            if name == LINK_KEY:
                self._change_link(self._settings, up=link_up(value))
            else:
                self._change_rate(self._settings, value)

    def _change_rate(self, settings: VifSettings, value: str) -> None:
        try:
            rate = rate_in(value)
        except ValueError:
            return  # nobody but the toolstack writes it, which has checked it
        self._settings = replace(settings, rate_bytes=rate[0], rate_interval_us=rate[1])
        self.credit = None
        if self._connection is not None:
            self._connection.set_rate(*rate)

    def _change_link(self, settings: VifSettings, *, up: bool) -> None:
        """The frontend is told."""
        if up == settings.link_up:
            return
        self._settings = replace(settings, link_up=up)
        if self._connection is not None:
            self._connection.set_link(up=up)
        back = f"backend/vif/{self.frontend}/{self.keys['frontend'].rpartition('/')[2]}"
        self.runtime.store.write(f"{back}/carrier", int(up))

    def counters(self) -> dict[str, int]:
        """What became of packets from and for it since it attached."""
        return self._connection.counters() if self._connection is not None else {}


class Queue:
    """A queue's rings and channels, while they are attached."""

    def __init__(self, runtime: Runtime, frontend: DomId) -> None:
        self._runtime = runtime
        self._frontend = frontend
        self._attached = Attached()
        self._rings: list[BackRing] = []
        self.asks = False
        """Whether its frontend's new buffers wake us."""
        self.throttled = False
        self.throttles = 0
        """How often it was so far: a timer of an earlier time finds that it comes too late."""

    def open(
        self, untrusted_keys: Keys, on_tx: Callable[..., None], on_rx: Callable[..., None], runs: Sequence[GrantRef],
        *, checked: bool,
    ) -> list[MappedPages]:
        """Map the rings and bind the channels; what fails leaves what was done to `close`.

        The runs of grants that are mapped with them: ours until they are taken.
        """
        refs = [GrantRef(number_in(untrusted_keys, f"{name}-ring-ref", GRANT_REF_MAX)) for name in ("tx", "rx")]
        split = {"event-channel-tx": on_tx, "event-channel-rx": on_rx}
        handlers = {"event-channel": on_tx} if "event-channel" in untrusted_keys else split
        ports = [(Port(number_in(untrusted_keys, name, PORT_MAX)), handler) for name, handler in handlers.items()]
        self._attached = self._runtime.attach(self._frontend, refs, ports, runs)
        sizes = ((TX_REQUEST_SIZE, TX_RESPONSE_SIZE), (RX_REQUEST_SIZE, RX_RESPONSE_SIZE))
        for page, (request_size, response_size) in zip(self._attached.pages, sizes, strict=True):
            self._rings.append(BackRing(page.view, request_size, response_size, checked=checked))
        self._runtime.waiter.attach_ring(self.tx_port, self._rings[0])
        return self._attached.runs

    @property
    def end(self) -> tuple[BackRing, BackRing, Endpoint, Endpoint]:
        """For a NetPort."""
        ports = self._attached.ports
        return self._rings[0], self._rings[1], ports[0][1], ports[-1][1]

    @property
    def tx_port(self) -> Port:
        return self._attached.ports[0][0]

    def ask(self, *, asks: bool) -> None:
        """Be woken for new buffers, or no longer."""
        if asks != self.asks:
            self.asks = asks
            change = self._runtime.waiter.attach_ring if asks else self._runtime.waiter.detach_ring
            change(self._attached.ports[-1][0], self._rings[1])

    def throttle(self, *, throttled: bool) -> None:
        """Leave what was sent in its ring, or no longer."""
        self.throttled = throttled
        self.throttles += throttled
        change = self._runtime.waiter.detach_ring if throttled else self._runtime.waiter.attach_ring
        change(self.tx_port, self._rings[0])

    def close(self) -> None:
        for port, _ in self._attached.ports:
            self._runtime.waiter.detach_ring(port)
        for ring in self._rings:
            ring.close()
        self._runtime.detach(self._attached)


class Connection:
    """What exists only while a frontend's rings are attached."""

    def __init__(self, backend: NetBackend, settings: VifSettings) -> None:
        self._runtime = backend.runtime
        self._frontend = backend.frontend
        self._backend = backend
        self._settings = settings
        self._switch: VifSwitch = switch_of(backend.runtime)
        self._queues: list[Queue] = []
        self._runs: PeerRuns | None = None
        self._port: NetPort | None = None

    def open(self, untrusted_keys: Keys) -> None:
        """Attach every queue and take a port in the switch; PeerFault on keys that make no sense."""
        if untrusted_keys.get("request-rx-copy") != "1":
            raise PeerFault("request-rx-copy is not 1: packets are copied, pages are not flipped")
        checked, named = untrusted_keys.get(RING_CHECKS) == "1", named_runs(untrusted_keys)
        mapped: list[list[MappedPages]] = []
        for number, keys in enumerate(self._keys_of_queues(untrusted_keys)):
            self._queues.append(Queue(self._runtime, self._frontend))
            handlers = (partial(self._guarded, self._serve, number), partial(self._guarded, self._drain))
            mapped.append(self._queues[-1].open(keys, *handlers, named, checked=checked))
            named = []  # with the first
        settings, switch = self._settings, self._switch
        if settings.has_uplink:
            switch.open_uplink(settings.network, settings.policy)
        self._port = NetPort(
            switch=switch.native, ends=[queue.end for queue in self._queues], network=switch.network(settings.network),
            party=switch.party(settings.party), mac=settings.mac, mtu=settings.mtu, vlan=settings.vlan,
            trunk=settings.trunk, rate_bytes=settings.rate_bytes, rate_interval_us=settings.rate_interval_us,
            guarded=settings.guarded, addresses=settings.addresses, rules=switch.table(settings.policy),
            accepts=accepted(untrusted_keys),
        )  # fmt: skip
        for number, queue in enumerate(self._queues):
            self._runtime.waiter.attach_turn(queue.tx_port, self._port, number)
        self._runs = PeerRuns(self._runtime.grants, self._frontend, MAPPINGS_MAX, self._port.add)
        self._runs.take(mapped[0])
        self._port.link_up = settings.link_up
        if self._backend.credit is not None:
            self._port.credit = self._backend.credit
        switch.own(self._port.number, self._look_after)

    def _keys_of_queues(self, untrusted_keys: Keys) -> list[Keys]:
        if "multi-queue-num-queues" not in untrusted_keys:
            return [untrusted_keys]
        count = number_in(untrusted_keys, "multi-queue-num-queues", QUEUES_MAX)
        if count == 0:
            raise PeerFault("multi-queue-num-queues is 0")
        if count == 1:
            return [untrusted_keys]
        front = self._backend.keys["frontend"]
        return [self._runtime.store.read_all(f"{front}/queue-{number}") for number in range(count)]

    def close(self) -> None:
        if self._port is not None:
            self._switch.disown(self._port.number)
            self._backend.credit = self._port.credit
            self._port.close()
            self._port = None
        for queue in self._queues:
            queue.close()
        self._queues.clear()
        if self._runs is not None:
            self._runs.unmap()

    def counters(self) -> dict[str, int]:
        return self._port.counters() if self._port is not None else {}

    def set_link(self, *, up: bool) -> None:
        if self._port is not None:
            self._port.link_up = up

    def set_rate(self, rate_bytes: int, interval_us: int) -> None:
        """Whoever waits for the one before goes on at once, as far as this one lets him."""
        if self._port is not None:
            self._port.set_rate(rate_bytes, interval_us)
            for number, queue in enumerate(self._queues):
                self._guarded(self._go_on, number, queue.throttles)

    # ---- turns -------------------------------------------------------------------------------------------------------

    def serve_all(self) -> None:
        for number in range(len(self._queues)):
            self._serve(number)

    def _serve(self, number: int) -> None:
        """Forward a bounded amount of what one queue has sent; then see to whom that needs."""
        port = self._port
        if port is None:
            return
        if self._queues[number].throttled:
            self._drain()  # its one channel may have told of buffers
            return
        try:
            turn = port.serve(number)
            while turn.end is NetEnd.UNMAPPED:
                self._map(turn.missing)
                turn = port.serve(number)
            self._end_turn(number, turn)
            if self._queues[number].asks:
                self._drain()
        finally:
            self._switch.settle()

    def _end_turn(self, number: int, turn: NetTurn) -> None:
        queue = self._queues[number]
        if turn.end is NetEnd.MORE:
            self._runtime.raise_again(queue.tx_port)
        elif turn.end is NetEnd.THROTTLED:
            queue.throttle(throttled=True)
            self._switch.after(turn.ready_in_ns, partial(self._guarded, self._go_on, number, queue.throttles))

    def _go_on(self, number: int, throttles: int) -> None:
        """Its rate lets it, if it is still there."""
        if self._port is not None and (queue := self._queues[number]).throttled and queue.throttles == throttles:
            queue.throttle(throttled=False)
            self._serve(number)

    def _drain(self) -> None:
        """Its frontend has given buffers: what waits for them goes on."""
        port = self._port
        if port is None:
            return
        while (turn := port.drain()).end is NetEnd.UNMAPPED:
            self._map(turn.missing)
        for number, queue in enumerate(self._queues):
            queue.ask(asks=port.waits(number))

    def _look_after(self) -> None:
        """Others sent to it, and it has no buffers, names one that is not mapped, or broke the protocol."""
        assert self._port is not None
        if self._port.fault:
            self._backend.on_fault(PeerFault(self._port.fault))
        else:
            self._guarded(self._drain)

    def _guarded(self, act: Callable[..., None], *arguments: int) -> None:
        try:
            act(*arguments)
        except PeerFault as fault:
            self._backend.on_fault(fault)

    def _map(self, ref: int) -> None:
        """Map the run that a ref belongs to; PeerFault when that is refused."""
        assert self._runs is not None
        if self._runs.full:
            raise PeerFault(f"its packets lie in more than {MAPPINGS_MAX} runs of grants")
        try:
            self._runs.map(ref)
        except (HypercallError, OSError) as error:
            raise PeerFault(f"a packet names ref {ref}, which cannot be mapped: {error}") from None


def accepted(untrusted_keys: Keys) -> list[bool]:
    """What the frontend can be given, in the order of NetPort's `accepts`."""
    def has(name: str, without: str = "0") -> bool:
        return untrusted_keys.get(name, without)[:NUMBER_DIGITS_MAX] == "1"

    return [
        has("feature-sg"),
        not has("feature-no-csum-offload"),
        has("feature-ipv6-csum-offload"),
        has("feature-gso-tcpv4"),
        has("feature-gso-tcpv6"),
        has("request-multicast-control"),
    ]
