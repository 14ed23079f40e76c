"""A switch's uplink: packets of the host and for it, with the header that a TAP device has, under the network's rules.

The device is a socket here, which keeps packets apart as it does.
"""

import random
import socket
import struct

import pytest

from hvd.domains.net.policy import Policy, compile_policy
from hvd.transport._native import NetUplink
from hvd.transport.errors import LocalError
from hvd.transport.net_rules import parse_rule

from .ends import PLAIN, gso
from .packets import checksum, frame, tcp, transport_is_right

HOST = bytes.fromhex("020000000001")
BROADCAST = b"\xff" * 6
PARTIES = {"uplink": 9, "one": 1, "two": 2}


class Host:
    """The other end of an uplink."""

    mac = HOST

    def __init__(self, switch, **settings):
        self.device, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        for each in (self.device, self.end):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        standard = {"network": 0, "party": 9, "mtu": 1500, "rules": None}
        self.uplink = NetUplink(switch=switch, fd=self.device.fileno(), **(standard | settings))

    def send(self, packet, header=bytes(10)):
        self.end.send(header + packet)

    def received(self):
        """(header, packet) of all that the device was given since."""
        found: list[tuple[bytes, bytes]] = []
        while True:
            try:
                data = self.end.recv(1 << 17)
            except BlockingIOError:
                return found
            found.append((data[:10], data[10:]))

    def counters(self):
        return {name: count for name, count in self.uplink.counters().items() if count and "bytes" not in name}

    def close(self):
        self.uplink.close()
        self.device.close()
        self.end.close()


def header(*, flags=0, gso_type=0, header_bytes=0, gso_size=0, start=0, offset=0):
    return struct.pack("<BBHHHH", flags, gso_type, header_bytes, gso_size, start, offset)


@pytest.fixture
def uplink(switch):
    made = []

    def host(**settings):
        made.append(Host(switch, **settings))
        return made[-1]

    yield host
    for each in made:
        each.close()


def test_packets_of_every_size_go_both_ways_as_they_are(make, uplink):
    one, host = make(mtu=9000), uplink(mtu=9000)
    source = random.Random(1)
    for size in (14, 60, 255, 256, 257, 1514, 4096, 4097, 9014):
        packet = (HOST + one.mac + b"\x88\xb5" + source.randbytes(size))[:size]
        one.send(packet)
        assert host.received() == [(bytes(10), packet)]
        back = (one.mac + HOST + b"\x88\xb5" + source.randbytes(size))[:size]
        host.send(back)
        host.uplink.serve()
        assert one.received() == [(back, 0, 0)]
    assert host.counters() == {"received": 9, "sent": 9}


def test_stations_behind_it_are_learned_and_what_is_for_them_goes_nowhere_else(make, uplink):
    one, two, host = make(1), make(2), uplink()
    other = bytes.fromhex("020000000002")
    for station in (HOST, other):
        host.send(frame(BROADCAST, station))
    host.uplink.serve()
    assert len(one.received()) == len(two.received()) == 2
    for station in (HOST, other):
        one.send(frame(station, one.mac))
    assert len(host.received()) == 2 and two.received() == []
    one.send(frame(two.mac, one.mac))
    assert len(two.received()) == 1 and host.received() == []


def test_it_is_in_its_network_and_in_no_vlan(make, uplink):
    tagged, elsewhere, host = make(1, trunk=[7]), make(2, network=1), uplink()
    host.send(frame(BROADCAST, HOST, kind=b"\x81\x00\x00\x07\x88\xb5"))
    host.send(frame(BROADCAST, HOST))
    host.uplink.serve()
    tagged.send(frame(BROADCAST, tagged.mac, kind=b"\x81\x00\x00\x07\x88\xb5"))
    elsewhere.send(frame(BROADCAST, elsewhere.mac))
    assert len(tagged.received()) == 1 and elsewhere.received() == host.received() == []
    assert host.counters() == {"received": 2, "wrong_vlan": 1}


@pytest.mark.parametrize(
    ("rule", "inwards", "outwards"),
    [
        ("deny from=uplink", False, True), ("deny to=uplink", True, False), ("deny from=one to=uplink", True, False),
        ("deny from=two to=uplink", True, True), ("deny from=uplink to=one ether=0x88b5", False, True),
        ("deny from=uplink to=one ether=0x88b6", True, True),
    ],
)  # fmt: skip
def test_rules_name_it_as_they_name_a_domain(make, uplink, rule, inwards, outwards):
    table = compile_policy(Policy((parse_rule(rule),), True), PARTIES.__getitem__)
    one, host = make(1, rules=table), uplink(rules=table)
    host.send(frame(one.mac, HOST))
    host.uplink.serve()
    one.send(frame(HOST, one.mac))
    assert (bool(one.received()), bool(host.received())) == (inwards, outwards)


def test_its_own_rules_hold_whatever_those_of_a_vif_say(make, uplink):
    closed = compile_policy(Policy((), False), PARTIES.__getitem__)
    one, host = make(1), uplink(rules=closed)
    host.send(frame(one.mac, HOST))
    host.uplink.serve()
    one.send(frame(HOST, one.mac))
    assert one.received() == host.received() == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_that_is_left_blank_is_left_to_whoever_takes_it_and_made_for_others(make, uplink, version):
    taker, plain, host = make(1), make(2, accepts=PLAIN), uplink()
    for to in (taker, plain):
        packet = tcp(host, to, version, b"x" * 1000)
        start = 34 if version == 4 else 54
        host.send(packet, header(flags=1, start=start, offset=16))
        host.uplink.serve()
        ((arrived, flags, _),) = to.received()
        assert transport_is_right(arrived, version) is (to is plain)
        assert bool(flags & 2) is (to is taker)
    taker.send(tcp(taker, host, version, b"y" * 1000), flags=3)
    assert host.received()[0][0] == header(flags=1, start=start, offset=16)


@pytest.mark.parametrize("version", [4, 6])
def test_segments_are_left_to_whoever_takes_them(make, uplink, version):
    one, host = make(1), uplink()
    kind, start = (1, 34) if version == 4 else (4, 54)
    packet = tcp(host, one, version, b"x" * 20_000)
    host.send(packet, header(flags=1, gso_type=kind, header_bytes=start + 20, gso_size=1428, start=start, offset=16))
    host.uplink.serve()
    assert [(len(arrived), size) for arrived, _, size in one.received()] == [(len(packet), 1428)]
    one.send(tcp(one, host, version, b"y" * 20_000), flags=3, extra=gso(1428, 1 if version == 4 else 2))
    ((told, arrived),) = host.received()
    assert told == header(
        flags=1, gso_type=kind, header_bytes=start + 20, gso_size=1428, start=start, offset=16
    ) and arrived[-1:] == b"y"


def test_a_checksum_in_a_tunnel_is_filled_in_before_anybody_gets_it(make, uplink):
    one, host = make(1), uplink()
    inner = struct.pack(">HHHH", 1, 2, 9, 0x1234) + b"z"  # UDP, its field holding a sum of what is elsewhere
    packet = frame(one.mac, HOST, b"\0" * 20 + inner)
    host.send(packet, header(flags=1, start=34, offset=6))
    host.uplink.serve()
    ((arrived, flags, _),) = one.received()
    assert flags & 2 == 0 and arrived[:40] == packet[:40]
    assert arrived[40:42] == struct.pack(">H", checksum(packet[34:]))


@pytest.mark.parametrize(
    "sent",
    [
        bytes(10) + bytes(13), bytes(10), header(gso_type=3, gso_size=9) + bytes(60), header(gso_type=1) + bytes(60),
        header(flags=1, start=60, offset=0) + bytes(60), header(flags=1, start=0xFFFF, offset=0xFFFF) + bytes(60),
        bytes(10) + bytes(65_536),
    ],
)  # fmt: skip
def test_what_makes_no_sense_from_the_device_goes_nowhere(make, uplink, sent):
    one, host = make(1), uplink()
    host.end.send(sent)
    host.send(frame(one.mac, HOST))
    host.uplink.serve()
    assert [arrived for arrived, _, _ in one.received()] == [frame(one.mac, HOST)]
    assert host.counters() == {"malformed": 1, "received": 1}


def test_packets_of_more_than_the_networks_mtu_go_nowhere(make, uplink):
    one, host = make(1, mtu=9000), uplink(mtu=1500)
    host.send(frame(one.mac, HOST, bytes(1501)))
    host.uplink.serve()
    assert one.received() == [] and host.counters() == {"received": 1, "oversize": 1}


def test_a_turn_of_it_is_64_packets(make, uplink):
    one, host = make(1), uplink()
    for _ in range(100):
        host.send(frame(one.mac, HOST))
    host.uplink.serve()
    assert len(one.received()) == 64
    host.uplink.serve()
    assert len(one.received()) == 36


def test_a_device_that_takes_nothing_loses_what_is_for_it_and_delays_nobody(make, uplink):
    one, two, host = make(1), make(2), uplink()
    host.end.close()
    one.send(frame(BROADCAST, one.mac))
    assert len(two.received()) == 1 and host.counters() == {"link_down": 1}


def test_one_that_is_closed_is_no_port_any_more(make, uplink):
    one, host = make(1), uplink()
    host.uplink.close()
    one.send(frame(BROADCAST, one.mac))
    assert host.received() == []
    with pytest.raises(LocalError, match="closed"):
        host.uplink.serve()
