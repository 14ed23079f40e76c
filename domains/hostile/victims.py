"""Victims: domains that grant and serve, well-behaved or (the controls') naive. They say how they are on demand.

A node `data/show` of theirs is the question, `data/state` the answer, in JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import signal
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from hvd.domains.guest import Guest
from hvd.domains.hostile.grants import DEADLINE_S, told
from hvd.transport import messages as m
from hvd.transport.channels import Endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.pages import PAGE_SIZE, Extent
from hvd.transport.rings import BackRing

ORIGINAL = b"original"
SLOT, SLOTS, HEADER = 64, 32, 64
REQUEST_MAX = 32
"""Bytes that a request may carry."""
BATCH = 32
NAIVE = "naive"
LOOKS, LOOK_AGAIN_S = 20, 0.05


def answer(guest: Guest, state: Callable[[], dict[str, Any]]) -> None:
    """Say how things are whenever somebody asks."""
    store = guest.runtime.store

    def show(_: str) -> None:
        if store.read("data/show"):
            store.write("data/state", json.dumps(state()))

    store.watch("data/show", show)


def grant(guest: Guest, mode: str, secret: str) -> None:
    """Share a page with `data/peer`, `readonly` or `writable`; `beside`: with a secret in the page next to it.

    On `data/revoke` take it back; `naive`: use it for something else although the peer has it mapped.
    """
    runtime, peer = guest.runtime, DomId(int(told(guest, "peer")))
    pages = 2 if mode == "beside" else 1
    extent_id, (descriptor,) = runtime.hypercalls.call(m.GnttabAllocate(peer, pages, mode == "readonly"))
    extent = Extent.map(descriptor, pages, writable=True)
    own = bytearray(secret.encode())  # where a neighbour's data belongs: in pages of its own
    if mode == "beside":
        extent.view[PAGE_SIZE : PAGE_SIZE + len(secret)] = secret.encode()
    ref = GrantRef(runtime.hypercalls.call(m.GnttabShare(extent_id, 0, 1)))
    extent.view[: len(ORIGINAL)] = ORIGINAL
    revoked = ""

    def revoke(_: str) -> None:
        nonlocal revoked
        if runtime.store.read("data/revoke") is None:
            return
        try:
            runtime.hypercalls.call(m.GnttabEndAccess(ref, 1))
            revoked = "taken back"
        except HypercallError as error:
            revoked = f"refused: {error.text}"
        if mode == NAIVE:
            extent.view[: len(own)] = own
        elif revoked == "taken back":  # the page is never used again: whoever had it mapped may have kept it
            runtime.hypercalls.call(m.GnttabFree(extent_id))
            runtime.grants.share(peer, 1).view[: len(own)] = own

    answer(guest, lambda: {"content": bytes(extent.view[: len(ORIGINAL)]).decode("latin-1"), "revoked": revoked})
    runtime.store.watch("data/revoke", revoke)
    runtime.store.write("data/ref", ref)
    guest.run_forever()


class _Room(ctypes.Structure):
    """Where a request is put, and what lies behind it."""

    _fields_ = (("buffer", ctypes.c_char * REQUEST_MAX), ("neighbour", ctypes.c_char * 4096))


class _Server(ABC):
    """The back of a ring whose requests are `u32 length, u32 id, bytes`, whose responses are `u32 id`."""

    def __init__(self, secret: str) -> None:
        self.room = _Room()
        self.room.neighbour = b"untouched"
        self.served = 0
        self.wakes = self.most_a_wake = 0
        self.fault = ""
        self.secret = secret.encode()

    def state(self) -> dict[str, Any]:
        return {"served": self.served, "fault": self.fault, "wakes": self.wakes, "most": self.most_a_wake,
                "intact": self.room.neighbour == b"untouched"}  # fmt: skip

    def wake(self) -> None:
        """Serve, and note how much was done at a time."""
        self.wakes += 1
        before = self.served
        self.serve()
        self.most_a_wake = max(self.most_a_wake, self.served - before)

    @abstractmethod
    def serve(self) -> None:
        """Carry out the requests there are."""

    def put(self, length: int, data: bytes) -> None:
        """What it does with a request, whoever checked it."""
        ctypes.memmove(ctypes.addressof(self.room), data, length)
        self.served += 1


class _Honest(_Server):
    """Copies each request once, checks the copy, does a batch a wake-up, and believes no index."""

    def __init__(self, view: memoryview, endpoint: Endpoint, secret: str) -> None:
        super().__init__(secret)
        self._ring, self._endpoint = BackRing(view, SLOT, SLOT), endpoint

    def serve(self) -> None:
        if self.fault:
            return
        try:
            slots = self._ring.pop_many(BATCH)
            for at in range(0, len(slots), SLOT):
                length, number = struct.unpack_from("<II", slots, at)
                if length > REQUEST_MAX:
                    self.fault = f"a request of {length} bytes"
                    return
                self.put(length, slots[at + 8 : at + SLOT])
                if self._ring.push(struct.pack("<I", number)):
                    self._endpoint.notify()
        except PeerFault as error:
            self.fault = str(error)


class _Naive(_Server):
    """Reads requests where they lie, each field when it is needed, as far as the other end says that there are some."""

    def __init__(self, view: memoryview, endpoint: Endpoint, secret: str, work: Callable[[], Any]) -> None:
        """`work` is what it does between checking a request and using it, as a backend maps grants there."""
        super().__init__(secret)
        self._view, self._endpoint, self._next, self._work = view, endpoint, 0, work
        self._response = bytearray((bytes(8) + self.secret).ljust(SLOT, b"\0"))  # a stack: other things were there

    def serve(self) -> None:
        while self._next != struct.unpack_from("<I", self._view, 0)[0]:
            at = HEADER + self._next % SLOTS * SLOT
            if struct.unpack_from("<I", self._view, at)[0] <= REQUEST_MAX:
                self._work()
                data = self._view[at + 8 : at + SLOT]
                self.put(min(struct.unpack_from("<I", self._view, at)[0], SLOT), bytes(data) + bytes(SLOT))
            self._response[0:4] = bytes(self._view[at + 4 : at + 8])
            self._view[at : at + SLOT] = self._response
            self._next = (self._next + 1) % 2**32
            self._view[8:12] = self._next.to_bytes(4, "little")
        self._endpoint.notify()


def serve_ring(guest: Guest, mode: str, secret: str) -> None:
    """Serve the ring that `data/peer` grants under `data/ref`, at its `data/port`."""
    runtime, peer = guest.runtime, DomId(int(told(guest, "peer")))
    mapped = runtime.grants.map(peer, GrantRef(int(told(guest, "ref"))), 1, writable=True)
    servers: list[_Server] = []
    _, endpoint = runtime.bind_interdomain(
        peer, Port(int(told(guest, "port"))), lambda: servers[0].wake() if servers else None
    )
    if mode == NAIVE:
        work = partial(runtime.hypercalls.call, m.XenVersion())
        servers.append(_Naive(mapped.view, endpoint, secret, work))
    else:
        servers.append(_Honest(mapped.view, endpoint, secret))
    answer(guest, servers[0].state)
    runtime.store.write("data/serving", "1")
    guest.run_forever()


def use_disk(guest: Guest) -> str:
    """Use a disk whose backend lies, and then, when that one is dead, its successor's."""
    disk, done = guest.disk(), []
    ids = [disk.submit_write(8 * index, bytes(4096)) for index in range(3)]
    while disk.in_flight:
        done += disk.completions(5)
    assert sorted(completion.id for completion in done) == ids, "not each was answered once"
    failed = [completion.errno for completion in done if completion.errno]
    assert set(failed) == {errno.EIO} and len(failed) >= 2, f"a lie was believed: {done}"
    guest.runtime.store.write("data/lied-to", f"{len(failed)} of 3 writes ended in EIO")
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            disk.write(0, b"late" * 128)
            break
    assert disk.read(0, 1) == b"late" * 128
    return "the successor served"


def keep_block(guest: Guest) -> str:
    """Write a block, once; what is in it while it should not change."""
    disk, found = guest.disk(), set()
    disk.write(0, b"G" * 512)
    for _ in range(LOOKS):
        found.add(disk.read(0, 1)[:1].decode())
        guest.runtime.wait(LOOK_AGAIN_S)
    return f"found {''.join(sorted(found))}"


def be_deaf_to_input(guest: Guest) -> None:
    """Never read what is typed, nor do anything else."""
    guest.runtime.store.write("data/deaf", "1")
    while True:
        signal.pause()
