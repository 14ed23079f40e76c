"""What a guarded vif may say of itself: whose addresses it claims, in ARP and neighbour discovery too."""

import struct
from ipaddress import ip_address

import pytest

from .packets import LINK_LOCAL, MAC, OTHER_MAC, OTHER_V4, OTHER_V6, V4, V6, advertisement, arp, frame, ipv4, ipv6


@pytest.mark.parametrize(
    ("kind", "payload", "passes"),
    [
        (0x88B5, b"", True),
        (0x0806, arp(MAC, V4), True), (0x0806, arp(MAC, bytes(4)), True),
        (0x0806, arp(OTHER_MAC, V4), False), (0x0806, arp(MAC, OTHER_V4), False),
        (0x0806, arp(MAC, V4, bytes.fromhex("0006080006040001")), False),
        (0x0800, ipv4(V4), True), (0x0800, ipv4(OTHER_V4), False),
        (0x0800, ipv4(bytes(4), ports=(68, 67)), True), (0x0800, ipv4(bytes(4), ports=(68, 53)), False),
        (0x0800, ipv4(bytes(4), ports=(68, 67), fragment=5), False), (0x0800, b"\x45", False),
        (0x86DD, ipv6(V6), True), (0x86DD, ipv6(LINK_LOCAL), True), (0x86DD, ipv6(OTHER_V6), False),
        (0x86DD, ipv6(bytes(16)), False), (0x86DD, ipv6(ip_address("fe80::1").packed), False),
        (0x86DD, advertisement(V6, MAC), True), (0x86DD, advertisement(LINK_LOCAL, MAC), True),
        (0x86DD, advertisement(OTHER_V6, MAC), False), (0x86DD, advertisement(V6, OTHER_MAC), False),
        (0x86DD, advertisement(OTHER_V6, MAC, 1, 135), True),
        (0x86DD, advertisement(OTHER_V6, OTHER_MAC, 1, 135), False),
        (0x86DD, advertisement(V6, MAC)[:-8] + b"\2\0" + MAC, False),
        (0x86DD, advertisement(V6, MAC, kind=134), False), (0x86DD, advertisement(V6, MAC, kind=137), False),
        (0x86DD, ipv6(bytes(16), 58, struct.pack(">BBHI", 135, 0, 0, 0) + V6), True),
        (0x86DD, ipv6(bytes(16), 58, struct.pack(">BBHI", 136, 0, 0, 0) + V6), False),
        (0x86DD, ipv6(LINK_LOCAL, 44, struct.pack(">BBHIBBHI", 58, 0, 1, 1, 136, 0, 0, 0) + V6), False),
    ],
)  # fmt: skip
def test_a_guarded_vif_speaks_for_itself_alone(make, kind, payload, passes):
    one, two = make(1, guarded=True, addresses=[V4, V6]), make(2)
    one.send(frame(two.mac, one.mac, payload, kind.to_bytes(2, "big")))
    assert bool(two.received()) is passes
    assert one.port.counters()["spoofed"] == (not passes)


def test_without_addresses_of_its_own_a_guarded_vif_may_use_any_but_no_others_mac(make):
    one, two = make(1, guarded=True), make(2)
    packets = (b"\x08\x00", ipv4(OTHER_V4)), (b"\x86\xdd", ipv6(OTHER_V6)), (b"\x08\x06", arp(MAC, OTHER_V4))
    for kind, payload in packets:
        one.send(frame(two.mac, one.mac, payload, kind))
    assert len(two.received()) == 3
    one.send(frame(two.mac, OTHER_MAC))
    one.send(frame(two.mac, one.mac, arp(OTHER_MAC, V4), b"\x08\x06"))
    assert two.received() == []


FRAGMENT = bytes.fromhex("3c00000100000007")  # the first of more, of what begins with destination options
OPTIONS, PAST_IT = bytes.fromhex("3a00010400000000"), bytes.fromhex("3b00010400000000")
ECHO = bytes.fromhex("80000000")


@pytest.mark.parametrize(
    ("fragment", "behind_it"),
    [
        # Options that another fragment goes on with; what the frame has behind the packet says that nothing follows.
        (FRAGMENT + bytes.fromhex("3c00010400000000"), PAST_IT),
        (FRAGMENT + bytes.fromhex("3c01010400000000"), bytes(8) + PAST_IT),
        # ICMPv6 that is wholly in the next fragment, and an echo behind the packet.
        (FRAGMENT + OPTIONS, ECHO),
    ],
)  # fmt: skip
def test_what_lies_behind_an_ipv6_packet_says_nothing_of_it(make, fragment, behind_it):
    one, two = make(1, guarded=True, addresses=[V6]), make(2)
    packet = ipv6(V6, 44, fragment)
    one.send(frame(two.mac, one.mac, packet + behind_it, b"\x86\xdd"))
    assert two.received() == []
    whole = ipv6(V6, 44, fragment + behind_it)
    one.send(frame(two.mac, one.mac, whole, b"\x86\xdd"))
    assert len(two.received()) == 1, "the same bytes in the packet"
