"""Attacks on whoever serves a ring of ours: what lies in its slots, and what its indices say."""

from __future__ import annotations

import struct
import threading

from hvd.domains.grants import SharedPages
from hvd.domains.guest import Guest
from hvd.domains.hostile.grants import told
from hvd.domains.hostile.victims import HEADER, REQUEST_MAX, SLOT, SLOTS
from hvd.transport.channels import Endpoint
from hvd.transport.ids import DomId
from hvd.transport.rings import FrontRing

FLIPS = 60
STORM_S = 0.4
LONG = 60


def _ring(guest: Guest) -> tuple[SharedPages, Endpoint]:
    """A ring granted to `data/peer`, once it serves it."""
    peer = DomId(int(told(guest, "peer")))
    shared = guest.runtime.grants.share(peer, 1)
    FrontRing(shared.view, SLOT, SLOT).init()
    port, endpoint = guest.runtime.alloc_unbound(peer, lambda: None)
    guest.runtime.store.write("data/ref", shared.ref)
    guest.runtime.store.write("data/port", port)
    told(guest, "go")
    return shared, endpoint


def _fill(view: memoryview, length: int) -> None:
    for slot in range(SLOTS):
        struct.pack_into("<II", view, HEADER + slot * SLOT, length, slot)


def _produce(view: memoryview, endpoint: Endpoint, producer: int) -> None:
    view[0:4] = (producer % 2**32).to_bytes(4, "little")
    endpoint.notify()


def double_fetch(guest: Guest) -> str:
    """XSA-155: the length changes while it is looked at."""
    shared, endpoint = _ring(guest)
    view, over = shared.view, threading.Event()
    images = []
    for length in (REQUEST_MAX, LONG):
        _fill(view, length)
        images.append(bytes(view[HEADER : HEADER + SLOTS * SLOT]))

    def flip() -> None:
        while not over.is_set():
            for image in images:
                view[HEADER : HEADER + SLOTS * SLOT] = image

    thread = threading.Thread(target=flip)
    thread.start()
    for number in range(1, FLIPS):
        _produce(view, endpoint, number)
        guest.runtime.wait(0.001)
    over.set()
    thread.join()
    return f"sent {FLIPS} requests"


def jump(guest: Guest, distance: str) -> str:
    """XSA-39: the producer's index is further ahead than there are slots; XSA-86: it goes backwards."""
    shared, endpoint = _ring(guest)
    _fill(shared.view, 8)
    _produce(shared.view, endpoint, int(distance))
    return f"req_prod is {int(distance):,}"


def produce_for_ever(guest: Guest) -> str:
    """XSA-39: there is always one more, for as long as somebody looks."""
    shared, endpoint = _ring(guest)
    _fill(shared.view, 8)
    _produce(shared.view, endpoint, 1)
    guest.runtime.store.write("data/producing", "1")
    view, until = shared.view, guest.runtime.system_time_ns() + int(STORM_S * 1e9)
    number = 0
    while guest.runtime.system_time_ns() < until:
        consumed = struct.unpack_from("<I", view, 8)[0]
        number = max(number + 1, consumed + SLOTS - 2)
        view[0:4] = min(number, consumed + SLOTS).to_bytes(4, "little")
        if number % 64 == 0:
            endpoint.notify()
    return f"req_prod went to {number:,}"


def read_padding(guest: Guest) -> str:
    """XSA-216: what lies in a response beside its fields."""
    shared, endpoint = _ring(guest)
    _produce(shared.view, endpoint, 1)
    guest.runtime.wait_until(lambda: struct.unpack_from("<I", shared.view, 8)[0] >= 1, "a response", 5)
    return f"the response holds {bytes(shared.view[HEADER : HEADER + SLOT]).replace(bytes(1), b'')!r}"


def storm(guest: Guest, count: str) -> str:
    """XSA-332: events without number for one who does not listen."""
    _, endpoint = _ring(guest)
    for _ in range(int(count)):
        endpoint.notify()
        endpoint.kick()
    return f"{int(count):,} events were sent"
