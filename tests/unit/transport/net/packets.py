"""Packets as tests of the switch make them: Ethernet, ARP, IPv4 and IPv6, UDP, TCP, neighbour discovery."""

import struct
from ipaddress import ip_address

V4, V6 = ip_address("10.0.0.1").packed, ip_address("fd00::1").packed
LINK_LOCAL = ip_address("fe80::216:3eff:fe00:1").packed
ARP_HEAD = bytes.fromhex("0001080006040001")


def arp(mac, address, head=ARP_HEAD):
    return head + mac + address + bytes(6) + ip_address("10.0.0.9").packed


def ipv4(source, protocol=17, ports=(1, 2), payload=b"x", fragment=0):
    body = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0) + source + V4 + body


def ipv6(source, kind=17, body=b"\0\1\0\2\0\x08\0\0", to=V6):
    return struct.pack(">IHBB", 6 << 28, len(body), kind, 255) + source + to + body


def advertisement(target, mac, option=2, kind=136):
    return ipv6(LINK_LOCAL, 58, struct.pack(">BBHI", kind, 0, 0, 0) + target + bytes((option, 1)) + mac)


OTHER_MAC, OTHER_V4, OTHER_V6 = bytes(range(2, 14, 2)), ip_address("10.0.0.2").packed, ip_address("fd00::2").packed
MAC = bytes.fromhex("00163e000001")


def frame(to, sender, payload=b"", kind=b"\x88\xb5"):
    return (to + sender + kind + payload).ljust(60, b"\0")


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport_is_right(packet, version):
    """Whether the checksum over the pseudo header and all behind it is."""
    at = 34 if version == 4 else 54
    addresses, protocol = (packet[26:34], packet[23]) if version == 4 else (packet[22:54], packet[20])
    end = 14 + (int.from_bytes(packet[16:18], "big") if version == 4 else 40 + int.from_bytes(packet[18:20], "big"))
    body = packet[at:end]
    return checksum(addresses + struct.pack(">HH", protocol, len(body)) + body) == 0


def tcp(one, two, version, payload, flags=0x19):
    """A TCP segment with a blank checksum."""
    body = struct.pack(">HHIIBBHHH", 7, 8, 0xFFFF_FF00, 5, 0x50, flags, 100, 0, 0) + payload
    if version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 77, 0x4000, 64, 6, 0) + V4 + OTHER_V4
        return two.mac + one.mac + b"\x08\x00" + head + body
    return two.mac + one.mac + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(body), 6, 64) + V6 + OTHER_V6 + body


def ip(text):
    return ip_address(text).packed


def udp4(source="10.0.0.1", to="10.0.0.2", ports=(1000, 2000), protocol=17, fragment=0):
    head = ipv4(ip(source), protocol, ports, fragment=fragment)
    return b"\x08\x00", head[:16] + ip(to) + head[20:]


def udp6(source="fd00::1", to="fd00::2", ports=(1000, 2000)):
    return b"\x86\xdd", ipv6(ip(source), 17, struct.pack(">HHHH", *ports, 8, 0), ip(to))
