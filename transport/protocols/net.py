"""The network device: Xen's netif (public/io/netif.h), what both ends need of it beside its slots.

A pair of rings, of one page each, makes a queue: Tx, of 12-byte requests and 4-byte responses, and Rx, of 8 bytes
each way. A transmitted packet is one to 18 requests, with extra infos (GSO, multicast groups) behind the first; a
received one is as many responses, each in the slot of the request that it used up. One event channel for both rings of
a queue, or one for each. The slots' layouts are in transport/native/netif.hpp.

Backend keys    feature-rx-copy feature-rx-notify feature-sg feature-gso-tcpv4 feature-gso-tcpv6
                feature-ipv6-csum-offload feature-split-event-channels feature-multicast-control
                feature-dynamic-multicast-control (0) multi-queue-max-queues carrier (0: the link is down)
    from the toolstack  mac bridge rate (bytes,microseconds) mtu ip vifname script handle type; hvd's own: hvd-vlan
                hvd-trunk hvd-guard hvd-link (down), and its network's hvd-default hvd-rules%u hvd-uplink
                (see domains/net/settings.py)
Frontend keys   tx-ring-ref rx-ring-ref, event-channel | event-channel-tx event-channel-rx; with more than one queue
                these below queue-%u/, and multi-queue-num-queues; request-rx-copy feature-rx-notify feature-sg
                feature-gso-tcpv4 feature-gso-tcpv6 feature-no-csum-offload feature-ipv6-csum-offload
                request-multicast-control hvd-ring-checks (1: a check beside each index, as offered)
                hvd-runs (first refs of runs of grants: the backend maps them with the rings)
    from the toolstack  mac mtu ip; hvd's own: hvd-gateway hvd-offload (1: it takes what is checksummed and cut up
                later) hvd-queues hvd-channels (shared: one for both rings) hvd-multicast-control (1: only groups that
                it joins)
    from the init of a program  hvd-interface (the name that the program knows it by) or hvd-no-interface (why there
                is none), of a vif that was plugged in while it ran

A frontend's checksum keys say what it may be given, as Xen has it: unless feature-no-csum-offload is 1, IPv4's TCP and
UDP checksums may be blank; IPv6's only if feature-ipv6-csum-offload is 1. A packet that its receiver would not take so
is checksummed, and cut into segments, by the backend.

hvd beyond Xen: the pages that a frontend names stay granted for as long as the backend is attached, which maps each run
of refs once. A frontend outlives its backend: it makes both rings empty for the next one (see domains/xenbus.py), posts
its receive buffers again, and transmits again, in order, what was not answered. So a packet may arrive twice, as on any
network; one whose backend died behind its answer may be lost.
"""

from __future__ import annotations

from typing import Final

TX_REQUEST_SIZE: Final = 12
TX_RESPONSE_SIZE: Final = 4
RX_REQUEST_SIZE: Final = 8
RX_RESPONSE_SIZE: Final = 8
RING_SLOTS: Final = 256
"""Of either ring."""
PACKET_BYTES_MAX: Final = 0xFFFF
HEADER_BYTES: Final = 14
"""Of an Ethernet frame without a VLAN tag."""
MTU: Final = 1500
MTU_MAX: Final = 9000
MTU_MIN: Final = 68
"""The least that IPv4 may count on."""
QUEUES_MAX: Final = 4
MAC_BYTES: Final = 6
XEN_PREFIX: Final = bytes((0x00, 0x16, 0x3E))
"""Of MAC addresses that nobody has chosen: Xen's own."""
HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF")
LINK_KEY: Final = "hvd-link"
"""Of a backend: up or down, which may change at any time."""
RATE_KEY: Final = "rate"
CHANGING_KEYS: Final = frozenset({LINK_KEY, RATE_KEY})
"""Of a backend: what may be changed while its vif is plugged in."""
PREFIXES: Final = {4: 24, 6: 64}
"""Of an address that is given without one, by version."""
GATEWAY_KEY: Final = "hvd-gateway"
"""Of a frontend: the routers, one of each version at most, that an interface of a program is given."""
INTERFACE_KEY: Final = "hvd-interface"
NO_INTERFACE_KEY: Final = "hvd-no-interface"
"""Of a frontend: what became of a vif that was plugged into a program that runs."""
UPLINK_KEY: Final = "hvd-uplink"
UPLINK: Final = "uplink"
"""What rules call a network's uplink, as they call a domain by its name."""
BRIDGE: Final = "xenbr0"
"""The network of who names none."""


def parse_mac(text: str) -> bytes:
    """Six bytes; ValueError, saying why, when it is no address of a station."""
    parts = text.split(":")
    if len(parts) != MAC_BYTES or not all(1 <= len(part) <= 2 and HEX_DIGITS.issuperset(part) for part in parts):
        raise ValueError(f"{text[:40]!r} is no MAC address: six pairs of hexadecimal digits, with colons between")
    mac = bytes(int(part, 16) for part in parts)
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"{text[:40]!r} is the address of a group or of nobody, not of a station")
    return mac


def spell_mac(mac: bytes) -> str:
    """As people write it."""
    return ":".join(f"{byte:02x}" for byte in mac)


def chosen_mac(domid: int, devid: int) -> bytes:
    """The address of a vif for which the toolstack has written none: both ends come to the same."""
    return XEN_PREFIX + bytes((0x80 | domid >> 8 & 0x7F, domid & 0xFF, devid & 0xFF))
