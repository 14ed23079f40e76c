"""The driver domain's end of a disk: its features, its frontend's grants, and what becomes of requests that are held.

READ and WRITE go through transport/native/blkback.hpp, a batch at a time, without Python.
"""

from __future__ import annotations

import errno
import os
from typing import assert_never

from hvd.domains.attaching import Attached
from hvd.domains.block.image import Image
from hvd.domains.device import Backend, Keys
from hvd.domains.peer_runs import PeerRuns, named_runs
from hvd.domains.runtime import Runtime
from hvd.transport._native import BlkBack, BlkHeld, BlkNeed
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.pages import Extent
from hvd.transport.protocols.block import (
    DISCARD,
    INDIRECT_SEGMENTS_MAX,
    INFO_READONLY,
    PROTOCOL,
    REQUEST_ID_OFFSET,
    REQUEST_SIZE,
    RESPONSE_ID_OFFSET,
    RESPONSE_SIZE,
    RING_PAGE_ORDER_MAX,
    SECTOR_SIZE,
    Operation,
    Status,
)
from hvd.transport.rings import RING_CHECKS, BackRing

BATCH = 32
"""Requests carried out before the other devices of this domain have their turn."""
MAPPINGS_MAX = 64
"""Runs of a frontend's grants that one device keeps mapped; with as many, all are let go before the next batch."""
DIGITS_MAX = 10
"""Digits of the largest 32-bit number."""


class BlockBackend(Backend):
    """Serves one image to one frontend."""

    def __init__(self, runtime: Runtime, frontend: DomId, keys: Keys) -> None:
        super().__init__(runtime, frontend, keys)
        self._image: Image | None = None
        self._connection: Connection | None = None

    def features(self) -> Keys:
        self.close()
        readonly = not self.keys.get("mode", "w").startswith("w")
        self._image = Image(self.keys["params"], self._medium(), None if readonly else self.keys.get("hvd-write-log"))
        return {
            "sectors": str(self._image.sectors),
            "sector-size": str(SECTOR_SIZE),
            "physical-sector-size": str(SECTOR_SIZE),
            "info": str(INFO_READONLY if readonly else 0),
            "feature-flush-cache": "1",
            "feature-discard": "0" if readonly or self.keys.get(DISCARD) == "0" else "1",
            "feature-persistent": "1",
            "feature-max-indirect-segments": str(INDIRECT_SEGMENTS_MAX),
            "max-ring-page-order": str(RING_PAGE_ORDER_MAX),
            RING_CHECKS: "1",
        }

    def _medium(self) -> int:
        """OSError naming the image, as if we had opened it ourselves; LocalError when another device writes it."""
        path, devid = self.keys["params"], self.keys["frontend"].rpartition("/")[2]
        try:
            return self.runtime.open_medium(self.frontend, "vbd", int(devid))
        except HypercallError as error:
            if error.errno == errno.EBUSY:
                raise LocalError(f"image {path} is written by another device, here or in another cluster") from None
            raise OSError(error.errno, os.strerror(error.errno), path) from None

    def attach(self, untrusted_keys: Keys) -> Keys:
        assert self._image is not None
        readonly = not self.keys.get("mode", "w").startswith("w")
        self._connection = Connection(self, self._image, readonly=readonly)
        self._connection.open(untrusted_keys)
        self._connection.serve()  # what the ring holds has waited since our predecessor's death
        return {}

    def detach(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        if self._image is not None:
            self._image.close()
            self._image = None


class Connection:
    """What exists only while a frontend's ring is attached."""

    def __init__(self, backend: BlockBackend, image: Image, *, readonly: bool) -> None:
        self._runtime = backend.runtime
        self._frontend = backend.frontend
        self._backend = backend
        self._image = image
        self._readonly = readonly
        self._runs: PeerRuns | None = None
        self._attached: Attached | None = None
        self._pages: Extent | None = None
        """The ring's, beside each other."""
        self._ring: BackRing | None = None
        self._back: BlkBack | None = None
        self._persistent = False

    def open(self, untrusted_keys: Keys) -> None:
        """Map the ring and bind the port; PeerFault or ValueError on keys that make no sense."""
        if untrusted_keys.get("protocol", PROTOCOL) != PROTOCOL:
            raise PeerFault(f"protocol {untrusted_keys['protocol'][:40]!r}; this backend speaks {PROTOCOL}")
        refs = ring_refs(untrusted_keys)
        self._persistent = untrusted_keys.get("feature-persistent") == "1"
        port = Port(_number(untrusted_keys, "event-channel"))
        named = named_runs(untrusted_keys) if self._persistent else []
        handler = self._backend.guarded(self.serve)
        self._attached = self._runtime.attach(self._frontend, refs, [(port, handler)], named)
        self._pages = Extent.gather([page.view for page in self._attached.pages])
        checked = untrusted_keys.get(RING_CHECKS) == "1"
        self._ring = BackRing(self._pages.view, REQUEST_SIZE, RESPONSE_SIZE, checked=checked)
        self._ring.name_messages_by(REQUEST_ID_OFFSET, RESPONSE_ID_OFFSET)
        ours, endpoint = self._attached.ports[0]
        self._back = BlkBack(
            self._ring, endpoint, self._image.descriptor, self._image.sectors, self._readonly,
            INDIRECT_SEGMENTS_MAX, self._persistent, self._image.log,
        )  # fmt: skip
        self._runs = PeerRuns(self._runtime.grants, self._frontend, MAPPINGS_MAX, self._back.add)
        self._runs.take(self._attached.runs)
        self._runtime.waiter.attach_ring(ours, self._ring)

    def close(self) -> None:
        if self._attached is None:
            return
        if self._ring is not None:
            self._runtime.waiter.detach_ring(self._attached.ports[0][0])
            self._ring.close()
        if self._back is not None and self._runs is not None:
            self._unmap_data(self._back, self._runs)
        if self._pages is not None:
            self._pages.close()
        self._runtime.detach(self._attached)

    def serve(self) -> None:
        """Carry out at most a batch; what is left makes the port ready again."""
        back, runs = self._back, self._runs
        if back is None or runs is None:
            return
        if runs.full:
            self._unmap_data(back, runs)
        held = back.serve(BATCH)
        while held is not None:
            held = self._go_on(back, runs, held)

    def _go_on(self, back: BlkBack, runs: PeerRuns, held: BlkHeld) -> BlkHeld | None:
        """Do what the held request needs; the next one that is held."""
        match held.need:
            case BlkNeed.MAP:
                if self._map(runs, held.missing):
                    return back.resume()
                status = Status.ERROR
            case BlkNeed.CONTROL:
                status = self._control(held)
            case BlkNeed.FAILED:
                status = _status_of(held.errno)
            case BlkNeed.RELEASE:
                status = Status(held.status)
            case _:
                assert_never(held.need)
        if not self._persistent:  # such a frontend may end its grants when it has the answer
            self._unmap_data(back, runs)
        return back.answer(status)

    def _map(self, runs: PeerRuns, ref: int) -> bool:
        """Map the run a ref belongs to (without persistent grants: just the page); False if that is refused."""
        if runs.full and self._persistent:
            return False
        try:
            runs.map(ref, whole=self._persistent)
        except (HypercallError, OSError):
            return False
        return True

    def _unmap_data(self, back: BlkBack, runs: PeerRuns) -> None:
        back.clear()
        runs.unmap()

    def _control(self, held: BlkHeld) -> Status:
        """Everything but READ and WRITE."""
        try:
            match held.operation:
                case Operation.FLUSH:
                    self._image.flush()
                    self._image.promise()
                case Operation.DISCARD:
                    self._image.discard(held.sector, held.sectors)
                case _:
                    return Status.EOPNOTSUPP
        except OSError as error:
            return _status_of(error.errno)
        return Status.OKAY


def _status_of(code: int | None) -> Status:
    """The status that says how a system call failed."""
    return Status.EOPNOTSUPP if code == errno.EOPNOTSUPP else Status.ERROR


def ring_refs(untrusted_keys: Keys) -> list[GrantRef]:
    """The pages of the frontend's ring, in order; PeerFault when there are too many."""
    if "ring-ref" in untrusted_keys:
        return [GrantRef(_number(untrusted_keys, "ring-ref"))]
    order = _number(untrusted_keys, "ring-page-order")
    if order > RING_PAGE_ORDER_MAX:
        raise PeerFault(f"ring-page-order {order}; at most {RING_PAGE_ORDER_MAX}")
    return [GrantRef(_number(untrusted_keys, f"ring-ref{i}")) for i in range(1 << order)]


def _number(untrusted_keys: Keys, name: str) -> int:
    """A key that names a port, a ref or an order; PeerFault saying what stands there instead."""
    value = untrusted_keys.get(name)
    if value is None:
        raise PeerFault(f"the key {name} is missing")
    if not (value.isascii() and value.isdecimal() and len(value) <= DIGITS_MAX):
        raise PeerFault(f"{name} is no number: {value[:40]!r}")
    return int(value)
