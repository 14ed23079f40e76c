"""Ports: who may open, bind, ring and close what, and what the other end sees of it."""

import errno

import pytest

from hvd.broker.errors import Refused
from hvd.broker.event_channels import VIRQ_DOM_EXC, VIRQ_TIMER, EventChannels, PortState
from hvd.transport.ids import DomId, Port
from hvd.transport.limits import PORTS_MAX

A, B, C = DomId(1), DomId(2), DomId(3)
CLOSED = {"status": PortState.CLOSED, "remote_dom": 0, "remote_port": 0, "virq": 0}


@pytest.fixture
def channels(hardware):
    made = EventChannels(hardware=hardware)
    for dom in (A, B, C):
        made.add_domain(dom)
    return made


def refusal(call, *args):
    with pytest.raises(Refused) as refused:
        call(*args)
    return refused.value.errno


def bound(channels):
    port = channels.alloc_unbound(A, B)
    return port, channels.bind_interdomain(B, A, port)


def test_ports_are_numbered_from_one_per_domain(channels):
    assert [channels.alloc_unbound(A, B) for _ in range(3)] == [1, 2, 3]
    assert channels.alloc_unbound(B, A) == 1


def test_the_lowest_closed_port_is_given_out_again(channels):
    for _ in range(3):
        channels.alloc_unbound(A, B)
    channels.close(A, Port(2))
    assert channels.alloc_unbound(A, B) == 2


def test_a_domain_has_at_most_ports_max_ports_and_the_next_is_refused(channels):
    for _ in range(PORTS_MAX):
        channels.alloc_unbound(A, B)
    assert refusal(channels.alloc_unbound, A, B) == errno.ENOSPC
    assert refusal(channels.bind_virq, A, VIRQ_TIMER) == errno.ENOSPC
    offer = channels.alloc_unbound(B, A)
    assert refusal(channels.bind_interdomain, A, B, offer) == errno.ENOSPC
    assert channels.status(B, offer)["status"] == PortState.UNBOUND
    assert len(channels.ports[A]) == PORTS_MAX
    channels.close(A, Port(17))
    assert channels.bind_interdomain(A, B, offer) == 17


def test_a_domain_that_does_not_exist_has_no_ports(channels):
    assert refusal(channels.alloc_unbound, DomId(9), A) == errno.ESRCH
    assert refusal(channels.status, DomId(9), Port(1)) == errno.ESRCH


def test_a_channel_that_the_host_refuses_leaves_no_port(channels, hardware):
    hardware.refused = {"create_channel"}
    with pytest.raises(OSError, match="Too many open files"):
        channels.alloc_unbound(A, B)
    hardware.refused = set()
    assert channels.ports[A] == {}
    assert channels.alloc_unbound(A, B) == 1


def test_binding_ties_both_ports_and_raises_the_new_one(channels, hardware):
    port, local = bound(channels)
    assert channels.status(A, port) == {"status": 2, "remote_dom": B, "remote_port": local, "virq": 0}
    assert channels.status(B, local) == {"status": 2, "remote_dom": A, "remote_port": port, "virq": 0}
    assert hardware.calls[-2:] == [("mark_open", 1, 0), ("raise_end", 1, 1)]


@pytest.mark.parametrize(
    ("binder", "remote", "port", "code"),
    [
        (C, A, 1, errno.EINVAL),
        (B, A, 2, errno.EINVAL),
        (B, C, 1, errno.EINVAL),
        (B, DomId(9), 1, errno.ESRCH),
        (A, A, 1, errno.EINVAL),
    ],
    ids=["not for it", "no such port", "wrong domain", "no such domain", "its own"],
)
def test_only_the_domain_a_port_is_open_for_binds_it(channels, binder, remote, port, code):
    channels.alloc_unbound(A, B)
    assert refusal(channels.bind_interdomain, binder, remote, Port(port)) == code
    assert channels.status(A, Port(1))["status"] == PortState.UNBOUND


def test_a_port_is_bound_once(channels):
    port, _ = bound(channels)
    assert refusal(channels.bind_interdomain, B, A, port) == errno.EINVAL


def test_a_virq_port_cannot_be_bound_by_anybody(channels):
    port = channels.bind_virq(A, VIRQ_TIMER)
    assert refusal(channels.bind_interdomain, B, A, port) == errno.EINVAL


def test_sending_raises_the_other_end_only(channels, hardware):
    port, local = bound(channels)
    hardware.calls.clear()
    channels.send(A, port)
    channels.send(B, local)
    assert hardware.calls == [("raise_end", 1, 1), ("raise_end", 1, 0)]


def test_sending_on_an_unbound_port_is_silently_nothing(channels, hardware):
    port = channels.alloc_unbound(A, B)
    hardware.calls.clear()
    channels.send(A, port)
    assert hardware.calls == []


def test_sending_on_a_closed_port_another_domains_port_or_a_virq_is_an_error(channels):
    port, _ = bound(channels)
    virq = channels.bind_virq(A, VIRQ_TIMER)
    assert refusal(channels.send, C, port) == errno.EINVAL
    assert refusal(channels.send, A, Port(99)) == errno.EINVAL
    assert refusal(channels.send, A, virq) == errno.EINVAL


def test_closing_one_end_leaves_the_other_unbound_for_the_same_domain_and_wakes_it(channels, hardware):
    port, local = bound(channels)
    hardware.calls.clear()
    channels.close(B, local)
    assert channels.status(A, port) == {"status": 1, "remote_dom": B, "remote_port": 0, "virq": 0}
    assert channels.status(B, local) == CLOSED
    assert hardware.calls == [("mark_closed", 1, 0)]


def test_the_end_that_stays_may_be_whichever(channels, hardware):
    port, local = bound(channels)
    channels.close(A, port)
    assert channels.status(B, local)["status"] == PortState.UNBOUND
    assert hardware.calls[-1] == ("mark_closed", 1, 1)
    assert channels.bind_interdomain(A, B, local) == port
    assert hardware.calls[-2:] == [("mark_open", 1, 1), ("raise_end", 1, 0)]


def test_a_peer_that_died_and_came_back_binds_the_same_port_of_the_same_channel(channels, hardware):
    port, _ = bound(channels)
    channels.close_all(B)
    assert channels.status(A, port)["status"] == PortState.UNBOUND
    local = channels.bind_interdomain(B, A, port)
    assert channels.ports[A][port].channel == channels.ports[B][local].channel == 1
    assert ("release_channel", 1) not in hardware.calls


def test_a_channel_goes_when_neither_end_is_left(channels, hardware):
    port, local = bound(channels)
    channels.close(A, port)
    assert not hardware.named("release_channel")
    channels.close(B, local)
    assert hardware.named("release_channel") == [("release_channel", 1)]


def test_an_unbound_port_takes_its_channel_with_it(channels, hardware):
    channels.close(A, channels.alloc_unbound(A, B))
    assert hardware.calls[-1] == ("release_channel", 1)


def test_closing_twice_or_what_is_anothers_is_an_error(channels):
    port = channels.alloc_unbound(A, B)
    assert refusal(channels.close, B, port) == errno.EINVAL
    channels.close(A, port)
    assert refusal(channels.close, A, port) == errno.EINVAL


def test_a_domain_may_be_its_own_peer(channels, hardware):
    port = channels.alloc_unbound(A, A)
    local = channels.bind_interdomain(A, A, port)
    assert (port, local) == (1, 2)
    hardware.calls.clear()
    channels.send(A, local)
    assert hardware.calls == [("raise_end", 1, 0)]
    channels.close_all(A)
    assert channels.ports[A] == {}
    assert hardware.named("release_channel") == [("release_channel", 1)]


def test_a_virq_is_bound_once_and_raised_where_it_is_bound(channels, hardware):
    port = channels.bind_virq(A, VIRQ_TIMER)
    assert channels.status(A, port) == {"status": 4, "remote_dom": 0x7FF2, "remote_port": 0, "virq": VIRQ_TIMER}
    assert refusal(channels.bind_virq, A, VIRQ_TIMER) == errno.EEXIST
    channels.bind_virq(B, VIRQ_TIMER)
    hardware.calls.clear()
    channels.raise_virq(A, VIRQ_TIMER)
    channels.raise_virq(A, VIRQ_DOM_EXC)
    channels.raise_virq(DomId(9), VIRQ_TIMER)
    assert hardware.calls == [("raise_end", 1, 0)]


def test_a_closed_virq_can_be_bound_again(channels, hardware):
    channels.close(A, channels.bind_virq(A, VIRQ_TIMER))
    assert hardware.calls[-1] == ("release_channel", 1)
    assert channels.bind_virq(A, VIRQ_TIMER) == 1


def test_there_are_four_virqs_and_no_others(channels):
    assert refusal(channels.bind_virq, A, 77) == errno.EINVAL


def test_death_closes_every_port_and_wakes_every_peer(channels, hardware):
    port, _ = bound(channels)
    other = channels.alloc_unbound(C, B)
    channels.bind_interdomain(B, C, other)
    channels.bind_virq(B, VIRQ_TIMER)
    hardware.calls.clear()
    channels.remove_domain(B)
    assert B not in channels.ports
    assert channels.status(A, port)["status"] == channels.status(C, other)["status"] == PortState.UNBOUND
    assert sorted(hardware.calls) == [("mark_closed", 1, 0), ("mark_closed", 2, 0), ("release_channel", 3)]


def test_the_status_of_a_closed_port_is_an_answer(channels):
    assert channels.status(A, Port(1)) == CLOSED
