"""The broker's hand on a domain's channels, which are real: who is rung by a new broker, and what a domain says."""

import os
import select
import socket
from types import SimpleNamespace

import pytest

from hvd.broker.bells import Bells
from hvd.broker.event_channels import VIRQ_UPCALL, Binding, PortState
from hvd.broker.held import PAGE, HeldDescriptors, channel_key
from hvd.transport.call_words import CallWords
from hvd.transport.channels import open_endpoint
from hvd.transport.ids import DOMID_XEN, DomId, Port

DOM, UPCALL, OTHER = DomId(5), Port(1), Port(2)
CHANNELS = {UPCALL: 1, OTHER: 2}


class Tables:
    """A domain of two ports, and what is held for it."""

    def __init__(self):
        self.links = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.held = HeldDescriptors(self.links[0], {})
        ports = {
            UPCALL: Binding(PortState.VIRQ, CHANNELS[UPCALL], 0, DOMID_XEN, virq=VIRQ_UPCALL),
            OTHER: Binding(PortState.UNBOUND, CHANNELS[OTHER], 0, DomId(6)),
        }
        self.domain = SimpleNamespace(domid=DOM)
        hypervisor = SimpleNamespace(
            channels=SimpleNamespace(ports={DOM: ports}), birth_ports=lambda domain: (OTHER, UPCALL)
        )
        self.ports = ports
        self.bells = Bells(self.held, lambda: hypervisor)  # type: ignore[arg-type, return-value]
        for channel in CHANNELS.values():
            self.held.create_channel(channel)
        self.ends = {port: self._open(channel) for port, channel in CHANNELS.items()}

    def _open(self, channel):
        """The domain's end."""
        page, rx, tx, *_ = self.held.by_key[channel_key(channel)]
        return open_endpoint(page, 0, os.dup(rx), os.dup(tx))

    def page(self, port):
        return self.held.by_key[channel_key(CHANNELS[port])][PAGE]

    def is_rung(self, port):
        """Whether somebody has written its pipe, which wakes whoever sleeps."""
        return bool(select.select([self.held.by_key[channel_key(CHANNELS[port])][1]], [], [], 0)[0])

    def close(self):
        for end in self.ends.values():
            end.close()
        for channel in CHANNELS.values():
            self.held.release_channel(channel)
        self.held.settle()
        for link in self.links:
            link.close()


@pytest.fixture
def tables():
    made = Tables()
    yield made
    made.close()


def test_who_sleeps_on_an_event_that_its_sender_died_over_is_woken_and_nobody_else(tables):
    for end in tables.ends.values():
        end.arm()
    os.pwrite(tables.page(UPCALL), (1).to_bytes(4, "little"), 0)  # all that a broker came to before it died
    tables.bells.ring_what_is_untaken(tables.domain)
    assert (tables.is_rung(UPCALL), tables.is_rung(OTHER)) == (True, False)
    assert tables.ends[UPCALL].take()


def test_who_has_taken_every_event_is_not_rung(tables):
    tables.bells.ring(tables.domain)
    assert tables.ends[UPCALL].take()
    tables.bells.ring_what_is_untaken(tables.domain)
    assert not (tables.is_rung(UPCALL) or tables.is_rung(OTHER) or tables.ends[UPCALL].take())


def test_a_domain_is_told_who_serves_it_and_tells_whether_it_asks_and_what_has_come(tables):
    words = CallWords(tables.page(UPCALL))
    tables.bells.serve(tables.domain, 7)
    assert (words.broker, tables.bells.untrusted_calls(tables.domain)) == (7, (False, 0, 0))
    words.begin()
    words.see(12)
    words.receive(9)
    assert tables.bells.untrusted_calls(tables.domain) == (True, 12, 9)
    assert not tables.is_rung(UPCALL)
    words.close()


def test_who_has_closed_its_upcall_port_is_taken_for_one_that_asks(tables):
    del tables.ports[UPCALL]
    tables.bells.serve(tables.domain, 7)
    assert tables.bells.untrusted_calls(tables.domain) == (True, 0, 0)
