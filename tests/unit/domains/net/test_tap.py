"""A vif and a real TAP device as one: what programs send in one network namespace arrives in another."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from hvd.domains.net.tap import TapLink
from hvd.domains.program.network import Interface, Pumped, make_tap, open_netlink, remove_tap
from hvd.transport.errors import LocalError

CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETOFFLOAD, SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFHWADDR, SIOCSIFNETMASK, SIOCSIFMTU = (
    0x400454CA, 0x400454D0, 0x8916, 0x8914, 0x8924, 0x891C, 0x8922,
)  # fmt: skip
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
IFF_UP_RUNNING = 0x41
DEADLINE_S = 60


def in_namespace(act):
    """Run `act` in a thread, and so a network namespace, of its own; what it returns."""
    outcome = []

    def run():
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            outcome.append(act())
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE_S)
    return outcome[0]


class Station:
    """A network namespace with a TAP device: its descriptor, and sockets made in it."""

    def __init__(self, mac, address, mtu, offload):
        def make():
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH14x", b"eth0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
            fcntl.ioctl(self.tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 if offload else 0)
            with socket.socket() as control:
                for request, value in (
                    (SIOCSIFHWADDR, struct.pack("H6s8x", 1, mac)),
                    (SIOCSIFADDR, struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))),
                    (SIOCSIFNETMASK, struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton("255.255.255.0"))),
                    (SIOCSIFMTU, struct.pack("i12x", mtu)),
                    (SIOCSIFFLAGS, struct.pack("H14x", IFF_UP_RUNNING)),
                ):
                    fcntl.ioctl(control, request, struct.pack("16s16s", b"eth0", value))
            self.tcp, self.udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for each in (self.tcp, self.udp):
                each.bind((address, 7000))
            return True

        made = in_namespace(make)
        if isinstance(made, OSError):
            pytest.skip(f"no TAP device in a namespace of its own: {made}")

    def close(self):
        for each in (self.tcp, self.udp):
            each.close()
        os.close(self.tap)


class Stations:
    """Two of them, linked to two vifs of one network, and a thread of theirs that exchanges data."""

    def __init__(self, machine, mtu, offload, back):
        self._machine = machine
        self.stations, self.links, self.vifs = [], [], []
        for number in (2, 3):
            front = {"mtu": str(mtu), "hvd-offload": "1" if offload[number - 2] else "0"}
            vif = machine.vif(number, front=front, mtu=str(mtu), **back)
            station = Station(vif.mac, f"10.9.0.{number}", mtu, offload[number - 2])
            self.vifs.append(vif)
            self.stations.append(station)
            self.links.append(TapLink(vif.front, [station.tap]))

    def exchange(self, act, meanwhile=lambda: None):
        """Forward packets until `act` has come back in its thread; its result."""
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(act(*self.stations)), daemon=True)
        thread.start()
        turns = 0
        while thread.is_alive():
            self._machine.run()
            turns += 1
            if turns % 50 == 0:
                meanwhile()
        thread.join()
        return outcome[0]

    def close(self):
        for link in self.links:
            link.close()
        for station in self.stations:
            station.close()


@pytest.fixture
def stations(machine):
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun")
    made = []

    def make(mtu=1500, offload=(True, True), **back):
        made.append(Stations(machine, mtu, offload, back))
        return made[-1]

    yield make
    for one in made:
        one.close()


DATA = bytes(range(256)) * 8192


def transfer(one, two, halfway=lambda: None):
    """A megabyte or two over TCP; what arrived. The second half is sent when `halfway` has come back."""
    two.tcp.listen()
    one.tcp.settimeout(DEADLINE_S)
    two.tcp.settimeout(DEADLINE_S)
    one.tcp.connect(two.tcp.getsockname())
    accepted, _ = two.tcp.accept()
    accepted.settimeout(DEADLINE_S)

    def send():
        one.tcp.sendall(DATA[: len(DATA) // 2])
        halfway()
        one.tcp.sendall(DATA[len(DATA) // 2 :])
        one.tcp.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = b"".join(iter(lambda: accepted.recv(1 << 16), b""))
    sender.join()
    accepted.close()
    return received


@pytest.mark.parametrize("offload", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_tcp_arrives_whole_whatever_either_end_leaves_to_the_other(stations, mtu, offload):
    both = stations(mtu, offload)
    assert both.exchange(transfer) == DATA
    counters = [link.counters()[0] for link in both.links]
    assert all(each.not_written == 0 and each.not_sent == 0 for each in counters)
    if offload == (True, True):
        assert counters[1].to_tap < len(DATA) / mtu / 2, "what TCP sends is not cut up"


def test_udp_checksums_are_filled_in_for_who_takes_no_blank_ones(stations):
    both = stations(offload=(True, False))

    def talk(one, two):
        two.udp.settimeout(DEADLINE_S)
        one.udp.sendto(b"hello", two.udp.getsockname())
        return two.udp.recv(100)

    assert both.exchange(talk) == b"hello"


def test_tcp_goes_on_over_the_deaths_of_backends(stations):
    both = stations()
    died = threading.Event()

    def kill():
        for vif in both.vifs:
            vif.kill_backend()
            vif.connect()
        died.set()

    def over_a_death(one, two):
        return transfer(one, two, lambda: died.wait(DEADLINE_S))

    assert both.exchange(over_a_death, kill) == DATA
    assert died.is_set()


HEADER = bytes(10)
"""struct virtio_net_hdr of a packet that needs nothing."""


@pytest.fixture
def device():
    """In the place of a TAP device: ours, where packets go in and come out, and the link's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def numbered(to, sender, number):
    return (to + sender + b"\x88\xb5" + number.to_bytes(2, "big")).ljust(60, b"\0")


@pytest.mark.parametrize("channels", ["split", "shared"])
def test_what_a_device_has_to_say_while_there_is_no_room_is_said_when_there_is(machine, device, channels):
    """A channel that tells of answers too is no native turn's: nobody else would hear that there is room."""
    ours, theirs = device
    one, two = machine.vif(2, front={"hvd-channels": channels}), machine.vif(3)
    link = TapLink(one.front, [theirs.fileno()])
    packets = [numbered(two.mac, one.mac, number) for number in range(600)]
    left, received = list(packets), []
    while left:
        with contextlib.suppress(BlockingIOError):
            while left:
                ours.send(HEADER + left[0])
                left.pop(0)
        for _ in range(20):
            one.guest.wait(0)  # nobody else runs: its ring is full
        assert one.front.front.in_flight <= 256
        two.front.send(numbered(one.mac, two.mac, 0))
        machine.run()
        received += two.front.receive_many(1000)
    machine.run()
    assert received + two.front.receive_many(1000) == packets
    assert ours.recv(100) == HEADER + numbered(one.mac, two.mac, 0)
    link.close()


def test_a_packet_goes_on_to_the_device_without_a_handler(machine, device):
    ours, theirs = device
    one, two = machine.vif(2), machine.vif(3)
    link = TapLink(one.front, [theirs.fileno()])
    called: list[int] = []
    for number in range(10):
        two.front.send(numbered(one.mac, two.mac, number))
        ours.send(HEADER + numbered(two.mac, one.mac, number))
        machine.run()
        one.guest.deliver = called.extend  # of the first an answer has told
    assert not called
    assert [ours.recv(100) for _ in range(10)] == [HEADER + numbered(one.mac, two.mac, n) for n in range(10)]
    assert two.front.receive_many() == [numbered(two.mac, one.mac, n) for n in range(10)]
    del one.guest.deliver
    link.close()
    two.front.send(numbered(one.mac, two.mac, 10))
    machine.run()
    assert one.front.receive_many() == [numbered(one.mac, two.mac, 10)]


def test_a_backend_that_lies_to_a_native_turn_is_let_go_of(machine, device):
    _, theirs = device
    one = machine.vif(2)
    link = TapLink(one.front, [theirs.fileno()])
    _, rx, _, rx_endpoint = one.back._connection._queues[0].end
    rx.pop()
    rx.push(struct.pack("<HHHh", 0, 4000, 0, 200))
    rx_endpoint.notify()
    machine.run()
    assert [str(fault) for fault in one.faults] == ["a part of 200 bytes from 4000 on crosses its page"]
    link.close()


def test_a_link_has_a_descriptor_for_each_queue(machine):
    vif = machine.vif(2, front={"hvd-queues": "2"})
    with pytest.raises(LocalError, match="2 queues, and as many descriptors: not 1"):
        TapLink(vif.front, [0])


@pytest.mark.parametrize("offload", [False, True])
def test_a_program_is_given_an_interface_as_the_toolstack_wrote_it(machine, offload):
    told = {"handle": "3", "mac": "00:16:3e:00:00:07", "mtu": "1400", "ip": "10.0.0.7/16 fd00::7"}
    front = told | {"hvd-gateway": "10.0.0.1"}
    vif = machine.vif(2, front=front | ({"hvd-offload": "1"} if offload else {}))
    assert isinstance(vif.front, Pumped)
    mac = bytes.fromhex("00163e000007")
    assert vif.front.interface == Interface("eth3", mac, 1400, ["10.0.0.7/16", "fd00::7"], offload, ["10.0.0.1"])


def test_a_vif_without_addresses_makes_an_interface_without(machine):
    assert machine.vif(2).front.interface.addresses == []


def test_a_device_that_somebody_has_removed_wakes_nobody_any_more(machine):
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun")
    opened = in_namespace(lambda: (open_netlink(), os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)))
    if isinstance(opened, OSError):
        pytest.skip(f"no TAP device in a namespace of its own: {opened}")
    netlink, tap = opened
    vif = machine.vif(2)
    make_tap(netlink, tap, Interface("eth0", vif.mac, 1500, []))
    link = TapLink(vif.front, [tap])
    machine.run()
    assert remove_tap(netlink, tap)
    waiter = vif.front.runtime.waiter
    assert waiter.wait(0), "the kernel tells that it is gone, again and again"
    machine.run()
    assert waiter.wait(0) == ()
    link.close()
    netlink.close()
    os.close(tap)


def test_a_vif_that_is_closed_lets_go_of_its_device(machine, device):
    ours, theirs = device
    vif = machine.vif(2)
    vif.front.pump(theirs.fileno())
    ours.send(HEADER + numbered(vif.mac, vif.mac, 1))
    waiter = vif.front.runtime.waiter
    vif.back.detach()
    vif.front.close()
    assert waiter.wait(0) == ()
    assert theirs.recv(100), "nobody has read it"
