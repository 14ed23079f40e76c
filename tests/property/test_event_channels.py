"""Event channels against a model that knows only who is bound to whom: both ends always agree, and nothing is lost."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hvd.broker.errors import Refused
from hvd.broker.event_channels import VIRQ_TIMER, EventChannels, PortState
from hvd.broker.hardware import NoHardware
from hvd.transport.ids import DomId, Port

DOMAINS = [DomId(n) for n in range(1, 4)]
DOMS = st.sampled_from(DOMAINS)
PORTS = st.integers(1, 6).map(Port)


@dataclass
class End:
    """What the model knows of an open port."""

    peer: DomId | None
    """Whom it is open for or bound to; None: a virq."""
    bound: tuple[DomId, Port] | None = None


class CountingHardware(NoHardware):
    """Knows which channels there are, and which end was raised last."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: set[int] = set()
        self.raised: list[tuple[int, int]] = []

    def create_channel(self, channel: int, owner: DomId) -> None:
        assert channel not in self.channels
        self.channels.add(channel)

    def release_channel(self, channel: int) -> None:
        self.channels.remove(channel)

    def raise_end(self, channel: int, side: int) -> None:
        self.raised.append((channel, side))


class Channels(RuleBasedStateMachine):
    """Three domains open, bind, ring and close ports, and die."""

    def __init__(self) -> None:
        super().__init__()
        self.hardware = CountingHardware()
        self.real = EventChannels(hardware=self.hardware)
        for dom in DOMAINS:
            self.real.add_domain(dom)
        self.model: dict[tuple[DomId, Port], End] = {}

    def free_port(self, dom: DomId) -> Port:
        return next(Port(n) for n in range(1, 2000) if (dom, Port(n)) not in self.model)

    @rule(dom=DOMS, peer=DOMS)
    def alloc_unbound(self, dom: DomId, peer: DomId) -> None:
        expected = self.free_port(dom)
        assert self.real.alloc_unbound(dom, peer) == expected
        self.model[dom, expected] = End(peer)

    @rule(dom=DOMS)
    def bind_virq(self, dom: DomId) -> None:
        expected = self.free_port(dom)
        taken = any(owner == dom and end.peer is None for (owner, _), end in self.model.items())
        try:
            assert self.real.bind_virq(dom, VIRQ_TIMER) == expected
            assert not taken
            self.model[dom, expected] = End(None)
        except Refused as refusal:
            assert taken
            assert refusal.errno == errno.EEXIST

    @rule(dom=DOMS, remote=DOMS, port=PORTS)
    def bind_interdomain(self, dom: DomId, remote: DomId, port: Port) -> None:
        offer = self.model.get((remote, port))
        allowed = offer is not None and offer.bound is None and offer.peer == dom
        expected = self.free_port(dom)
        try:
            local = self.real.bind_interdomain(dom, remote, port)
        except Refused as refusal:
            assert not allowed
            assert refusal.errno == errno.EINVAL
            return
        assert allowed
        assert offer is not None
        assert local == expected
        self.model[dom, local] = End(remote, (remote, port))
        offer.bound = dom, local
        assert self.hardware.raised[-1] == self.place(dom, local)

    def place(self, dom: DomId, port: Port) -> tuple[int, int]:
        binding = self.real.ports[dom][port]
        return binding.channel, binding.side

    @rule(dom=DOMS, port=PORTS)
    def send(self, dom: DomId, port: Port) -> None:
        end = self.model.get((dom, port))
        before = len(self.hardware.raised)
        try:
            self.real.send(dom, port)
        except Refused:
            assert end is None or end.peer is None
            return
        assert end is not None
        rung = self.hardware.raised[before:]
        assert rung == ([self.place(*end.bound)] if end.bound else [])

    @rule(dom=DOMS, port=PORTS)
    def close(self, dom: DomId, port: Port) -> None:
        try:
            self.real.close(dom, port)
        except Refused:
            assert (dom, port) not in self.model
            return
        self.forget(dom, port)

    def forget(self, dom: DomId, port: Port) -> None:
        end = self.model.pop((dom, port))
        if end.bound in self.model:
            self.model[end.bound].bound = None

    @rule(dom=DOMS)
    def die(self, dom: DomId) -> None:
        self.real.close_all(dom)
        for owner, port in [key for key in self.model if key[0] == dom]:
            self.forget(owner, port)

    @invariant()
    def the_tables_are_the_models(self) -> None:
        assert {(dom, port) for dom, ports in self.real.ports.items() for port in ports} == set(self.model)
        for (dom, port), end in self.model.items():
            status = self.real.status(dom, port)
            if end.peer is None:
                assert status["status"] == PortState.VIRQ
            else:
                assert status["status"] == (PortState.INTERDOMAIN if end.bound else PortState.UNBOUND)
                assert (status["remote_dom"], status["remote_port"]) == (end.peer, end.bound[1] if end.bound else 0)

    @invariant()
    def both_ends_of_a_channel_agree(self) -> None:
        for ports in self.real.ports.values():
            for port, binding in ports.items():
                if binding.remote_port is not None:
                    other = self.real.ports[binding.remote_dom][binding.remote_port]
                    assert (other.remote_port, other.channel, other.side) == (port, binding.channel, 1 - binding.side)

    @invariant()
    def there_is_a_channel_for_each_end_and_no_other(self) -> None:
        places = [self.place(dom, port) for dom, ports in self.real.ports.items() for port in ports]
        assert len(places) == len(set(places))
        assert {channel for channel, _ in places} == self.hardware.channels

    def teardown(self) -> None:
        for dom in DOMAINS:
            self.real.remove_domain(dom)
        assert self.real.ports == {}
        assert self.hardware.channels == set()


TestChannels = Channels.TestCase
TestChannels.settings = settings(max_examples=200, stateful_step_count=40)
