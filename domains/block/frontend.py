"""A guest's disk: blkif requests, their shadow across backends' deaths, and the calls a guest makes."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from dataclasses import dataclass

from hvd.domains.block.pool import PagePool, Run
from hvd.domains.block.shadow import Request, Shadow
from hvd.domains.device import Frontend, Keys
from hvd.domains.runtime import Runtime
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.ids import DomId
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.protocols.block import (
    DIRECT_SEGMENTS_MAX,
    INDIRECT_SEGMENTS_MAX,
    INFO_READONLY,
    PROTOCOL,
    REQUEST_ID_OFFSET,
    REQUEST_SIZE,
    RESPONSE_ID_OFFSET,
    RESPONSE_SIZE,
    RING_PAGE_ORDER_MAX,
    SECTOR_SIZE,
    SECTORS_PER_PAGE,
    Operation,
    Status,
    decode_response,
    encode_discard,
    encode_flush,
    encode_indirect,
    encode_segments,
    encode_transfer,
)
from hvd.transport.rings import FrontRing

POOL_PAGES = 1024
TIMEOUT_MS = 30_000
MAX_EXTRA_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Completion:
    """How a submitted request ended: `errno` 0, EIO, EROFS or EOPNOTSUPP; `data` is what a read brought."""

    id: int
    errno: int
    data: bytes = b""


class BlockFrontend(Frontend):
    """One disk. Sectors are 512 bytes.

    `read`, `write`, `flush` and `discard` block and raise OSError; `submit_*` and `completions` keep many requests in
    flight. Every submitted request completes exactly once: with the backend's answer, or with EIO after `timeout-ms`.
    """

    def __init__(self, runtime: Runtime, backend: DomId, keys: Keys) -> None:
        super().__init__(runtime, backend, keys)
        self.name = keys.get("virtual-device", "")
        self.sectors = 0
        self.readonly = False
        self._timeout_ns = int(keys.get("timeout-ms", TIMEOUT_MS)) * 1_000_000
        self._order = min(int(keys.get("hvd-ring-page-order", 0)), RING_PAGE_ORDER_MAX)
        self._ring_pages = runtime.grants.share(backend, 1 << self._order)
        self._ring = FrontRing(self._ring_pages.view, REQUEST_SIZE, RESPONSE_SIZE)
        self._data = runtime.grants.share(backend, int(keys.get("hvd-pool-pages", POOL_PAGES)))
        self._pool = PagePool(len(self._data.view) // PAGE_SIZE)
        self._port, self._endpoint = runtime.alloc_unbound(backend, self.guarded(self._on_event))
        self._shadow = Shadow()
        self._done: deque[Completion] = deque()
        self._connected = False
        self._segments_max = DIRECT_SEGMENTS_MAX
        self._can_flush = self._can_discard = False

    # ---- the handshake (see Frontend) --------------------------------------------------------------------------------

    def publish(self, backend_keys: Keys) -> Keys:
        self._ring.close()
        self._ring = FrontRing(self._ring_pages.view, REQUEST_SIZE, RESPONSE_SIZE)  # what a backend broke stays so
        self._ring.name_messages_by(REQUEST_ID_OFFSET, RESPONSE_ID_OFFSET)
        self._ring.init()
        keys = {"event-channel": str(self._port), "protocol": PROTOCOL, "feature-persistent": "1"}
        if self._order == 0:
            return keys | {"ring-ref": str(self._ring_pages.ref)}
        refs = {f"ring-ref{i}": str(self._ring_pages.ref + i) for i in range(1 << self._order)}
        return keys | refs | {"ring-page-order": str(self._order), "num-ring-pages": str(1 << self._order)}

    def connected(self, backend_keys: Keys) -> None:
        self.name = backend_keys.get("dev", self.name)
        self.sectors = int(backend_keys["sectors"])
        self.readonly = bool(int(backend_keys.get("info", "0")) & INFO_READONLY)
        self._can_flush = backend_keys.get("feature-flush-cache") == "1"
        self._can_discard = backend_keys.get("feature-discard") == "1"
        offered = min(int(backend_keys.get("feature-max-indirect-segments", "0")), INDIRECT_SEGMENTS_MAX)
        self._segments_max = max(offered, DIRECT_SEGMENTS_MAX)
        self.runtime.waiter.attach_ring(self._port, self._ring)
        self._connected = True
        self._pump()

    def backend_gone(self) -> None:
        if self._connected:
            with contextlib.suppress(PeerFault):
                self._on_event()  # what it had answered before it died counts
            self.runtime.waiter.detach_ring(self._port)
            self._connected = False
        for request in self._shadow.backend_died():
            self._release(request)

    def close(self) -> None:
        self.backend_gone()
        self._ring.close()
        self.runtime.close_port(self._port)

    # ---- submitting --------------------------------------------------------------------------------------------------

    def submit_read(self, sector: int, count: int) -> int:
        """Ask for `count` sectors (at most `request_sectors_max`); the request's id. Waits while the pool is full."""
        self._check(sector, count)
        data = self._take(self._pages_of(count))
        return self._submit_transfer(Operation.READ, sector, count, data)

    def submit_write(self, sector: int, data: bytes | bytearray | memoryview) -> int:
        """Write whole sectors (at most `request_sectors_max`); the request's id. The data is copied at once."""
        count = self._whole_sectors(data)
        self._check(sector, count)
        if self.readonly:
            raise OSError(errno.EROFS, f"disk {self.name} is read-only")
        run = self._take(self._pages_of(count))
        start = run.first * PAGE_SIZE
        self._data.view[start : start + len(data)] = data
        return self._submit_transfer(Operation.WRITE, sector, count, run)

    def submit_flush(self) -> int:
        """Make what was answered so far durable; the request's id."""
        if not self._can_flush:
            raise OSError(errno.EOPNOTSUPP, f"the backend of disk {self.name} cannot flush")
        request_id = self._shadow.next_id()
        return self._submit(Request(request_id, encode_flush(request_id), Operation.FLUSH, 0, None, self._deadline()))

    def submit_discard(self, sector: int, count: int) -> int:
        """Say that these sectors are not needed any more; they read as zeros. The request's id."""
        self._check(sector, count, most=self.sectors)
        if not self._can_discard:
            raise OSError(errno.EOPNOTSUPP, f"the backend of disk {self.name} cannot discard")
        request_id = self._shadow.next_id()
        slot = encode_discard(request_id, sector, count)
        return self._submit(Request(request_id, slot, Operation.DISCARD, count, None, self._deadline()))

    @property
    def request_sectors_max(self) -> int:
        """Sectors of the largest single request."""
        return min(self._segments_max, self._pool.pages - 1) * SECTORS_PER_PAGE

    @property
    def in_flight(self) -> int:
        """Requests submitted and not completed."""
        return sum(1 for request in self._shadow.open.values() if not request.abandoned)

    def completions(self, timeout_s: float = 0.0) -> list[Completion]:
        """What has completed; waits for the first one up to the timeout."""
        if not self._done:
            self.runtime.wait(0)
            self._expire()
        until = time.monotonic() + timeout_s
        while not self._done and self.in_flight:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._wait(left)
        done = list(self._done)
        self._done.clear()
        return done

    # ---- blocking calls ----------------------------------------------------------------------------------------------

    def read(self, sector: int, count: int) -> bytes:
        """`count` sectors from `sector` on. OSError EIO when the backend says so or does not answer in time."""
        step = self.request_sectors_max
        if count <= step:
            return self._finish(self.submit_read(sector, count))
        ids = [self.submit_read(at, min(step, sector + count - at)) for at in range(sector, sector + count, step)]
        return b"".join(self._finish_all(ids))

    def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        """Write whole sectors. When it returns the backend has them; `flush` makes them durable."""
        count, step = self._whole_sectors(data), self.request_sectors_max
        view = memoryview(data)
        ids = [
            self.submit_write(sector + at, view[at * SECTOR_SIZE : min(at + step, count) * SECTOR_SIZE])
            for at in range(0, count, step)
        ]
        self._finish_all(ids)

    def flush(self) -> None:
        """Everything that a write returned for before this call is on the image's medium when this returns."""
        self._finish(self.submit_flush())

    def discard(self, sector: int, count: int) -> None:
        self._finish(self.submit_discard(sector, count))

    def _finish_all(self, ids: list[int]) -> list[bytes]:
        """Wait for every part of one call; the first error is raised when all are done, so that none is left over."""
        data, errors = [], []
        for request_id in ids:
            try:
                data.append(self._finish(request_id))
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return data

    def _finish(self, request_id: int) -> bytes:
        """Wait for one request; others' completions stay for whoever asks for them."""
        while True:
            for index, completion in enumerate(self._done):
                if completion.id == request_id:
                    del self._done[index]
                    if completion.errno:
                        raise OSError(completion.errno, f"disk {self.name}: {os.strerror(completion.errno)}")
                    return completion.data
            self._wait(None)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _submit_transfer(self, operation: Operation, sector: int, count: int, data: Run) -> int:
        request_id = self._shadow.next_id()
        refs = range(self._data.ref + data.first, self._data.ref + data.first + data.count)
        segments = encode_segments(refs, count)
        table = None
        if data.count <= DIRECT_SEGMENTS_MAX:
            slot = encode_transfer(operation, request_id, sector, segments)
        else:
            try:
                table = self._take(1)
            except OSError:
                self._pool.give_back(data)
                raise
            self._data.view[table.first * PAGE_SIZE : table.first * PAGE_SIZE + len(segments)] = segments
            slot = encode_indirect(operation, request_id, sector, data.count, self._data.ref + table.first)
        return self._submit(Request(request_id, slot, operation, count, data, self._deadline(), table))

    def _submit(self, request: Request) -> int:
        self._shadow.add(request)
        self._pump()
        return request.id

    def _pump(self) -> None:
        """Put unsent requests into the ring as far as it has room."""
        if not self._connected:
            return
        notify = False
        while self._ring.free and (request := self._shadow.unsent()) is not None:
            notify |= self._ring.push(request.slot)
        if notify:
            self._endpoint.notify()

    def _on_event(self) -> None:
        """Take in every response there is."""
        if not self._connected:
            return
        while (slot := self._ring.pop()) is not None:
            untrusted_id, _, status = decode_response(slot)
            request = self._shadow.answered(untrusted_id)
            if request is not None:
                self._complete(request, status)
        self._pump()

    def _complete(self, request: Request, status: int) -> None:
        if not request.abandoned:
            data = b""
            if request.operation == Operation.READ and status == Status.OKAY and request.data is not None:
                start = request.data.first * PAGE_SIZE
                data = bytes(self._data.view[start : start + request.sectors * SECTOR_SIZE])
            code = {Status.OKAY: 0, Status.EOPNOTSUPP: errno.EOPNOTSUPP}.get(status, errno.EIO)  # type: ignore[call-overload]
            self._done.append(Completion(request.id, code, data))
        self._release(request)

    def _release(self, request: Request) -> None:
        for run in (request.data, request.table):
            if run is not None:
                self._pool.give_back(run)

    def _wait(self, left_s: float | None) -> None:
        """Let things happen; complete with EIO what is past its deadline."""
        deadline_ns = min((r.deadline_ns for r in self._shadow.open.values() if not r.abandoned), default=None)
        waits = [left_s] if left_s is not None else []
        if deadline_ns is not None:
            waits.append(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        self.runtime.wait(min(waits, default=MAX_EXTRA_WAIT_S))
        if deadline_ns is not None:
            self._expire()

    def _expire(self) -> None:
        """Complete what is past its deadline; pages that a backend may still use stay taken."""
        for request in self._shadow.expired(time.monotonic_ns()):
            self._done.append(Completion(request.id, errno.EIO))
            if not request.abandoned:
                self._release(request)

    def _take(self, pages: int) -> Run:
        """Pages for a request, when others have given theirs back if need be. OSError ETIMEDOUT when none come back."""
        until = time.monotonic_ns() + 2 * self._timeout_ns
        while (run := self._pool.take(pages)) is None:
            if time.monotonic_ns() > until:
                raise OSError(errno.ETIMEDOUT, f"disk {self.name}: no {pages} pages became free")
            self._wait(None)
        return run

    def _check(self, sector: int, count: int, most: int | None = None) -> None:
        most = self.request_sectors_max if most is None else most
        if not 1 <= count <= most:
            raise LocalError(f"disk {self.name}: a request has 1 to {most} sectors, not {count}")
        if sector < 0 or sector + count > self.sectors:
            raise LocalError(f"disk {self.name}: sectors {sector}..{sector + count - 1} of {self.sectors}")

    def _whole_sectors(self, data: bytes | bytearray | memoryview) -> int:
        count, rest = divmod(len(data), SECTOR_SIZE)
        if rest:
            raise LocalError(f"disk {self.name}: {len(data)} bytes are not whole sectors of {SECTOR_SIZE}")
        return count

    def _pages_of(self, sectors: int) -> int:
        return -(-sectors // SECTORS_PER_PAGE)

    def _deadline(self) -> int:
        return time.monotonic_ns() + self._timeout_ns
