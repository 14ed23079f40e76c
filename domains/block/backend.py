"""The driver domain's end of a disk: untrusted requests in, checked I/O on an image, answers out in order."""

from __future__ import annotations

import errno

from hvd.domains.block.image import Image
from hvd.domains.device import Backend, Keys
from hvd.domains.grants import MappedPages
from hvd.domains.runtime import Runtime
from hvd.transport._native import BlkifDecoder
from hvd.transport.channels import Endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.protocols.block import (
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
    encode_response,
)
from hvd.transport.rings import BackRing

BATCH = 32
"""Requests carried out before the other devices of this domain have their turn."""
MAPPINGS_MAX = 64
"""Runs of a frontend's grants that one device keeps mapped; with as many, all are let go before the next batch."""
DIGITS_MAX = 10
"""Digits of the largest 32-bit number."""

Decoded = tuple[int, int, int, int, int, list[memoryview]]


class BlockBackend(Backend):
    """Serves one image to one frontend."""

    def __init__(self, runtime: Runtime, frontend: DomId, keys: Keys) -> None:
        super().__init__(runtime, frontend, keys)
        self._image: Image | None = None
        self._connection: Connection | None = None

    def features(self) -> Keys:
        self.close()
        readonly = not self.keys.get("mode", "w").startswith("w")
        self._image = Image(self.keys["params"], readonly=readonly)
        return {
            "sectors": str(self._image.sectors),
            "sector-size": str(SECTOR_SIZE),
            "physical-sector-size": str(SECTOR_SIZE),
            "info": str(INFO_READONLY if readonly else 0),
            "feature-flush-cache": "1",
            "feature-discard": "0" if readonly else "1",
            "feature-persistent": "1",
            "feature-max-indirect-segments": str(INDIRECT_SEGMENTS_MAX),
            "max-ring-page-order": str(RING_PAGE_ORDER_MAX),
        }

    def attach(self, untrusted_keys: Keys) -> Keys:
        assert self._image is not None
        readonly = not self.keys.get("mode", "w").startswith("w")
        self._connection = Connection(self, self._image, readonly=readonly)
        self._connection.open(untrusted_keys)
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
        self._decoder = BlkifDecoder(image.sectors, readonly, INDIRECT_SEGMENTS_MAX)
        self._mapped: list[MappedPages] = []
        self._ring_pages: MappedPages | None = None
        self._ring: BackRing | None = None
        self._port: Port | None = None
        self._endpoint: Endpoint | None = None
        self._persistent = False

    def open(self, untrusted_keys: Keys) -> None:
        """Map the ring and bind the port; PeerFault or ValueError on keys that make no sense."""
        if untrusted_keys.get("protocol", PROTOCOL) != PROTOCOL:
            raise PeerFault(f"protocol {untrusted_keys['protocol'][:40]!r}; this backend speaks {PROTOCOL}")
        first, count = ring_refs(untrusted_keys)
        self._persistent = untrusted_keys.get("feature-persistent") == "1"
        self._ring_pages = self._runtime.grants.map(self._frontend, GrantRef(first), count)
        self._ring = BackRing(self._ring_pages.view, REQUEST_SIZE, RESPONSE_SIZE)
        self._ring.name_messages_by(REQUEST_ID_OFFSET, RESPONSE_ID_OFFSET)
        port = Port(_number(untrusted_keys, "event-channel"))
        handler = self._backend.guarded(self.serve)
        self._port, self._endpoint = self._runtime.bind_interdomain(self._frontend, port, handler)
        self._runtime.waiter.attach_ring(self._port, self._ring)

    def close(self) -> None:
        if self._port is not None:
            self._runtime.waiter.detach_ring(self._port)
            self._runtime.close_port(self._port)
        if self._ring is not None:
            self._ring.close()
        self._decoder.clear()
        for mapped in (*self._mapped, *([self._ring_pages] if self._ring_pages else [])):
            self._runtime.grants.unmap(mapped)

    def serve(self) -> None:
        """Carry out at most a batch; what is left makes the port ready again."""
        ring, endpoint = self._ring, self._endpoint
        if ring is None or endpoint is None:
            return
        if not self._persistent:
            self._serve_one(ring, endpoint)
            return
        if len(self._mapped) >= MAPPINGS_MAX:
            self._unmap_data()
        for request in self._decode(ring.pop_many(BATCH)):
            if ring.push(self._answer(request)):
                endpoint.notify()

    def _serve_one(self, ring: BackRing, endpoint: Endpoint) -> None:
        """A frontend without persistent grants may end them with the answer, so they are let go before it."""
        answers = [self._answer(request) for request in self._decode(ring.pop_many(1))]
        self._unmap_data()
        for answer in answers:
            if ring.push(answer):
                endpoint.notify()

    def _decode(self, slots: bytes) -> list[Decoded]:
        """Every request of the batch in order, its grants mapped; where they cannot be, an error to answer."""
        decoded: list[Decoded] = []
        while True:
            some, missing = self._decoder.decode(slots, len(decoded))
            decoded += some
            if missing is None:
                return decoded
            if not self._map(missing):
                at = len(decoded) * REQUEST_SIZE
                request_id = int.from_bytes(slots[at + 8 : at + 16], "little")
                decoded.append((request_id, slots[at], Status.ERROR, 0, 0, []))

    def _map(self, ref: int) -> bool:
        """Map the run a ref belongs to (without persistent grants: just the page); False if that is refused."""
        if len(self._mapped) >= MAPPINGS_MAX and self._persistent:
            return False
        count = 0 if self._persistent else 1
        for writable in (True, False):
            try:
                mapped = self._runtime.grants.map(self._frontend, GrantRef(ref), count, writable=writable)
            except (HypercallError, OSError) as error:
                if error.errno == errno.EACCES and writable and isinstance(error, HypercallError):
                    continue
                return False
            self._mapped.append(mapped)
            self._decoder.add(mapped.ref, mapped.view, writable)
            return True
        return False

    def _unmap_data(self) -> None:
        self._decoder.clear()
        while self._mapped:
            self._runtime.grants.unmap(self._mapped.pop())

    def _answer(self, request: Decoded) -> bytes:
        request_id, operation, status, sector, sectors, memory = request
        if status == Status.OKAY:
            status = self._carry_out(operation, sector, sectors, memory)
        return encode_response(request_id, operation, status)

    def _carry_out(self, operation: int, sector: int, sectors: int, memory: list[memoryview]) -> int:
        try:
            match operation:
                case Operation.READ:
                    self._image.read(sector, memory)
                case Operation.WRITE:
                    self._image.write(sector, memory)
                case Operation.FLUSH:
                    self._image.flush()
                case Operation.DISCARD:
                    self._image.discard(sector, sectors)
        except OSError as error:
            return Status.EOPNOTSUPP if error.errno == errno.EOPNOTSUPP else Status.ERROR
        return Status.OKAY


def ring_refs(untrusted_keys: Keys) -> tuple[int, int]:
    """(first ref, pages) of the frontend's ring; PeerFault when its pages are not consecutive refs or too many."""
    if "ring-ref" in untrusted_keys:
        return _number(untrusted_keys, "ring-ref"), 1
    order = _number(untrusted_keys, "ring-page-order")
    if order > RING_PAGE_ORDER_MAX:
        raise PeerFault(f"ring-page-order {order}; at most {RING_PAGE_ORDER_MAX}")
    refs = [_number(untrusted_keys, f"ring-ref{i}") for i in range(1 << order)]
    if refs != list(range(refs[0], refs[0] + len(refs))):
        raise PeerFault("the pages of the ring are not consecutive grants")
    return refs[0], len(refs)


def _number(untrusted_keys: Keys, name: str) -> int:
    """A key that names a port, a ref or an order; PeerFault saying what stands there instead."""
    value = untrusted_keys.get(name)
    if value is None:
        raise PeerFault(f"the key {name} is missing")
    if not (value.isascii() and value.isdecimal() and len(value) <= DIGITS_MAX):
        raise PeerFault(f"{name} is no number: {value[:40]!r}")
    return int(value)
