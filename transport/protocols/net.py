"""The network device: Xen's netif (public/io/netif.h), what both ends need of it beside its slots.

A pair of rings, of one page each, makes a queue: Tx, of 12-byte requests and 4-byte responses, and Rx, of 8 bytes each
way. A transmitted packet is one to 18 requests, with extra infos (GSO, multicast groups) behind the first; a received one
is as many responses, each in the slot of the request that it used up. One event channel for both rings of a queue, or one
for each. The slots' layouts are in transport/native/netif.hpp.

Backend keys    feature-rx-copy feature-rx-notify feature-sg feature-gso-tcpv4 feature-gso-tcpv6 feature-ipv6-csum-offload
                feature-split-event-channels feature-multicast-control feature-dynamic-multicast-control (0)
multi-queue-max-queues carrier (0: the link is down) mac bridge rate (bytes,microseconds)
Frontend keys   tx-ring-ref rx-ring-ref, event-channel | event-channel-tx event-channel-rx; with more than one queue these
                below queue-%u/, and multi-queue-num-queues; request-rx-copy feature-rx-notify feature-sg
                feature-gso-tcpv4 feature-gso-tcpv6 feature-no-csum-offload feature-ipv6-csum-offload
                request-multicast-control mac mtu hvd-offload (1: it takes what is checksummed and cut up later)

A frontend's checksum keys say what it may be given, as Xen has it: unless feature-no-csum-offload is 1, IPv4's TCP and UDP
checksums may be blank; IPv6's only if feature-ipv6-csum-offload is 1. A packet that its receiver would not take so is
checksummed, and cut into segments, by the backend.

hvd beyond Xen: the pages that a frontend names stay granted for as long as the backend is attached, which maps each run of
refs once. A frontend outlives its backend: it makes both rings empty for the next one (see domains/xenbus.py), posts its
receive buffers again, and transmits again, in order, what was not answered. So a packet may arrive twice, as on any network;
one whose backend died behind its answer may be lost.
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
