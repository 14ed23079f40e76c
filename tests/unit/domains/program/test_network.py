"""TAPs that get and lose devices from outside of their network namespace, whoever else writes to us there."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvd.domains.program import network
from hvd.domains.program.interfaces import Interfaces, NoInterface
from hvd.domains.program.network import Interface, make_tap, open_netlink, remove_tap, set_up_loopback
from hvd.transport._native import leave_namespaces
from hvd.transport.errors import LocalError
from hvd.transport.limits import INTERFACES_MAX
from hvd.transport.process import CLONE_NEWNET

ETH1 = Interface("eth1", bytes.fromhex("0216e3000001"), 1400, ["10.9.8.1/24", "fd00::1"], gateways=["10.9.8.2"])
NLMSG_ERROR, EPERM = 2, 1
SIOCGIFFLAGS, IFF_UP = 0x8913, 1


def in_a_namespace(act: Callable[[], Any]) -> Any:
    """What `act` returns, in a thread with a network namespace of its own."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            leave_namespaces(CLONE_NEWNET)
            outcome.append(act())
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


class Namespace:
    """One that nobody is in: what reaches into it."""

    def __init__(self) -> None:
        def open_all() -> tuple[socket.socket, socket.socket, list[int]]:
            return open_netlink(), open_netlink(), network.Taps(None).open()

        opened = in_a_namespace(open_all)
        if isinstance(opened, OSError) or not opened[2]:
            pytest.skip(f"no TAP device in a namespace of its own: {opened}")
        self.netlink, self.other, self.taps = opened

    def has(self, name: str) -> bool:
        try:
            network._index(self.netlink, name.encode())
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.netlink.close()
        self.other.close()
        for tap in self.taps:
            os.close(tap)


@pytest.fixture
def namespace():
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun")
    made = Namespace()
    yield made
    made.close()


def test_a_tap_has_one_device_after_the_other(namespace: Namespace) -> None:
    assert len(namespace.taps) == INTERFACES_MAX
    for _ in range(3):
        make_tap(namespace.netlink, namespace.taps[0], ETH1)
        assert namespace.has("eth1")
        assert remove_tap(namespace.netlink, namespace.taps[0])
        assert not namespace.has("eth1")
    assert remove_tap(namespace.netlink, namespace.taps[0])  # there is none any more


def test_loopback_is_up_in_the_namespace_of_the_socket(namespace: Namespace) -> None:
    set_up_loopback(namespace.netlink)
    flags = fcntl.ioctl(namespace.netlink, SIOCGIFFLAGS, network.REQUEST.pack(b"lo", 0))
    assert network.REQUEST.unpack(flags)[1] & IFF_UP


def forge(namespace: Namespace, count: int) -> None:
    """Refusals for every request that is to come, from somebody in the namespace."""
    set_up_loopback(namespace.netlink)  # it has an address from its first request on
    number = next(network._NUMBERS)
    for ahead in range(1, count + 1):
        message = network.ANSWER.pack(network.ANSWER.size, NLMSG_ERROR, 0, number + ahead, 0, -EPERM)
        namespace.other.sendto(message, (namespace.netlink.getsockname()[0], 0))
        namespace.other.sendto(b"x", (namespace.netlink.getsockname()[0], 0))


def test_what_others_of_the_namespace_write_is_no_answer(namespace: Namespace) -> None:
    forge(namespace, 20)
    make_tap(namespace.netlink, namespace.taps[0], ETH1)
    assert namespace.has("eth1")


def test_an_answer_to_an_older_request_is_none_to_this_one(namespace: Namespace) -> None:
    of_none = network.LINK.pack(socket.AF_UNSPEC, 0, 999, 0, 0)
    head = network.HEADER.pack(network.HEADER.size + len(of_none), network.RTM_DELLINK, 5, 0xFFFF_FFFF, 0)
    namespace.netlink.send(head + of_none)  # and it is refused
    make_tap(namespace.netlink, namespace.taps[0], ETH1)
    assert namespace.has("eth1")


def test_whoever_fills_the_socket_keeps_an_interface_from_being_and_nobody_waiting(namespace: Namespace) -> None:
    namespace.other.setblocking(False)
    with pytest.raises(BlockingIOError):
        forge(namespace, 1 << 20)
    with pytest.raises(OSError, match="No buffer space available"):
        make_tap(namespace.netlink, namespace.taps[0], ETH1)
    assert remove_tap(namespace.netlink, namespace.taps[0])
    make_tap(namespace.netlink, namespace.taps[0], ETH1)  # what was in it is gone by now


class Device:
    """One that carries packets, or refuses to."""

    keys: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, interface: Interface = ETH1, refusal: str = "") -> None:
        self.interface, self.refusal, self.pumped = interface, refusal, -1

    def pump(self, descriptor: int) -> None:
        if self.refusal:
            raise LocalError(self.refusal)
        self.pumped = descriptor


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (Device(refusal="it has 4 queues"), "it has 4 queues"),
        (Device(Interface("eth1", ETH1.mac, 1500, ["10.0.0.1", "10.0.0.1"])), "eth1: File exists: it has that address"),
        (Device(Interface("eth1", ETH1.mac, 1500, [], gateways=["10.0.0.1"])), "eth1: .*: a gateway is in none of its"),
        (Device(Interface("lo", ETH1.mac, 1500, [])), "lo: .*: it has an interface of that name already"),
    ],
)
def test_what_cannot_be_an_interface_is_told_and_leaves_nothing(
    namespace: Namespace, device: Device, text: str
) -> None:
    interfaces = Interfaces(namespace.netlink, namespace.taps, "")
    for _ in range(INTERFACES_MAX + 1):
        with pytest.raises(NoInterface, match=text):
            interfaces.give(device)
        assert not namespace.has("eth1") and not interfaces.has(device)


def test_there_are_so_many_and_one_more_when_one_was_taken(namespace: Namespace) -> None:
    interfaces = Interfaces(namespace.netlink, namespace.taps, "")
    devices = [Device(Interface(f"eth{n}", ETH1.mac, 1500, [])) for n in range(INTERFACES_MAX + 1)]
    assert [interfaces.give(device) for device in devices[:-1]] == [f"eth{n}" for n in range(INTERFACES_MAX)]
    with pytest.raises(NoInterface, match=f"its vif takes a TAP device: {INTERFACES_MAX} are the most"):
        interfaces.give(devices[-1])
    interfaces.take(devices[3])
    interfaces.take(devices[3])
    assert interfaces.give(devices[-1]) == f"eth{INTERFACES_MAX}" and devices[-1].pumped == devices[3].pumped


def test_where_the_host_has_no_tap_for_us_the_reason_is_told(namespace: Namespace) -> None:
    interfaces = Interfaces(namespace.netlink, [], "/dev/net/tun: Permission denied")
    with pytest.raises(NoInterface, match="/dev/net/tun: Permission denied; hvd doctor says more"):
        interfaces.give(Device())
