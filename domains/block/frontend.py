"""A guest's disk: its handshake with backends that come and go, and the calls a guest makes.

The requests themselves, their pages and ids, and what is issued again are in transport/native/blkfront.hpp.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hvd.domains.block.detached import DetachedDisk
from hvd.domains.device import Frontend, Keys, number_in
from hvd.domains.peer_runs import RUNS
from hvd.domains.runtime import Runtime
from hvd.transport._native import BlkFront, Completion
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.ids import DomId
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
    SECTORS_MAX,
)
from hvd.transport.rings import RING_CHECKS, FrontRing

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlockFrontend", "Completion"]

POOL_PAGES = 1024
TIMEOUT_MS = 30_000
MAX_EXTRA_WAIT_S = 1.0
NEVER_NS = 2**62
"""A system time past every deadline."""
PIECE_SECTORS = 512
"""What blocking calls cut long reads and writes into: one piece is copied here while the backend carries the next."""


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
        self._timeout_s = int(keys.get("timeout-ms", TIMEOUT_MS)) / 1000
        self._order = min(int(keys.get("hvd-ring-page-order", 0)), RING_PAGE_ORDER_MAX)
        self._ring_pages = runtime.grants.share(backend, 1 << self._order)
        self._ring = FrontRing(self._ring_pages.view, REQUEST_SIZE, RESPONSE_SIZE)
        self._data = runtime.grants.share(backend, int(keys.get("hvd-pool-pages", POOL_PAGES)))
        self._held = 0
        self._front: BlkFront | DetachedDisk = BlkFront(self._data.view, self._data.ref, int(self._timeout_s * 1e9))
        self._port, self._endpoint = runtime.alloc_unbound(backend, self.guarded(self._front.collect))
        self._can_flush = self._can_discard = False

    # ---- the handshake (see Frontend) --------------------------------------------------------------------------------

    def publish(self, backend_keys: Keys) -> Keys:
        self._ring.close()
        checked = backend_keys.get(RING_CHECKS) == "1"
        # another one: what a backend broke stays so
        self._ring = FrontRing(self._ring_pages.view, REQUEST_SIZE, RESPONSE_SIZE, checked=checked)
        self._ring.name_messages_by(REQUEST_ID_OFFSET, RESPONSE_ID_OFFSET)
        self._ring.init()
        keys = {"event-channel": str(self._port), "protocol": PROTOCOL, "feature-persistent": "1"}
        keys |= {RING_CHECKS: str(int(checked)), RUNS: str(self._data.ref)}
        if self._order == 0:
            return keys | {"ring-ref": str(self._ring_pages.ref)}
        refs = {f"ring-ref{i}": str(self._ring_pages.ref + i) for i in range(1 << self._order)}
        return keys | refs | {"ring-page-order": str(self._order), "num-ring-pages": str(1 << self._order)}

    def published(self, backend_keys: Keys) -> None:
        """What was not answered waits in the ring for the next backend already, if its offer is one of hvd's."""
        if "sectors" in backend_keys and self._front.in_flight:
            self.connected(backend_keys)

    def connected(self, backend_keys: Keys) -> None:
        if self._front.attached:
            return
        self.name = backend_keys.get("dev", self.name)
        self.sectors = number_in(backend_keys, "sectors", SECTORS_MAX)
        self.readonly = bool(int(backend_keys.get("info", "0")) & INFO_READONLY)
        self._can_flush = backend_keys.get("feature-flush-cache") == "1"
        self._can_discard = backend_keys.get("feature-discard") == "1"
        offered = min(int(backend_keys.get("feature-max-indirect-segments", "0")), INDIRECT_SEGMENTS_MAX)
        self.runtime.waiter.attach_ring(self._port, self._ring)
        self._front.attach(self._ring, self._endpoint, self.name, self.sectors, max(offered, DIRECT_SEGMENTS_MAX))

    def backend_gone(self) -> None:
        if self._front.attached:
            with contextlib.suppress(PeerFault):
                self._front.collect()  # what it had answered before it died counts
            self.runtime.waiter.detach_ring(self._port)
        self._front.detach()

    def in_use(self) -> str:
        if self._held:
            return f"its guest holds disk {self.name}"
        busy = self._front.in_flight
        return f"{busy} requests are open on disk {self.name}" if busy else ""

    def close(self) -> None:
        self.backend_gone()
        self._front.expire(NEVER_NS)
        self._ring.close()
        self.runtime.close_port(self._port)
        self._front = DetachedDisk(self.name, self._front.take_all())
        for pages in (self._ring_pages, self._data):
            self.runtime.grants.give_back(pages)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs the disk is not taken away, unless by force: for what is more than one request."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    # ---- submitting --------------------------------------------------------------------------------------------------

    def submit_read(self, sector: int, count: int, into: Buffer | None = None) -> int:
        """Ask for `count` sectors (at most `request_sectors_max`); the request's id. Waits while the pool is full.

        They go into the buffer `into`, of just that many bytes, which must be left alone until the request completes;
        without it they are the completion's `data`.
        """
        while (request_id := self._front.submit_read(sector, count, into)) is None:
            self._wait_for_room()
        return request_id

    def submit_write(self, sector: int, data: Buffer) -> int:
        """Write whole sectors (at most `request_sectors_max`); the request's id. The data is copied at once."""
        self._check_writable()
        while (request_id := self._front.submit_write(sector, data)) is None:
            self._wait_for_room()
        return request_id

    def submit_reads(self, sectors: Sequence[int], count: int, into: Buffer | None = None) -> list[int]:
        """`submit_read` of `count` sectors from each of these on: for one call's price, and one notification.

        The buffer `into` has room for them all, in this order. A wrong argument submits nothing; OSError ETIMEDOUT when
        the pool stays full leaves those submitted that had room.
        """
        ids = self._front.submit_reads(sectors, 0, count, into)
        while len(ids) < len(sectors):
            self._wait_for_room()
            ids += self._front.submit_reads(sectors, len(ids), count, into)
        return ids

    def submit_writes(self, sectors: Sequence[int], count: int, data: Buffer) -> list[int]:
        """`submit_write` of `count` sectors to each of these on; `data` has them all in order. See `submit_reads`."""
        self._check_writable()
        ids = self._front.submit_writes(sectors, 0, count, data)
        while len(ids) < len(sectors):
            self._wait_for_room()
            ids += self._front.submit_writes(sectors, len(ids), count, data)
        return ids

    def buffer(self, sectors: int) -> memoryview:
        """Memory that the backend itself reads and writes: `into` and `data` of requests, without a copy.

        Half of the pool at most (LocalError); waits while no such run of pages is free. A request has it, whole or from
        a multiple of 4096 bytes on, until it completes; one that ended with EIO may be carried out late, until the disk
        has connected anew. The backend can write it at any time: copy what must not change while it is looked at.
        """
        while (offset := self._front.lend(sectors)) is None:
            self._wait_for_room()
        return self._data.view[offset : offset + sectors * SECTOR_SIZE]

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back. LocalError when it is none of this disk's, or a request uses it."""
        self._front.take_back(buffer)
        buffer.release()

    def submit_flush(self) -> int:
        """Make what was answered so far durable; the request's id."""
        if not self._can_flush:
            raise OSError(errno.EOPNOTSUPP, f"the backend of disk {self.name} cannot flush")
        return self._front.submit_flush()

    def submit_discard(self, sector: int, count: int) -> int:
        """Say that these sectors are not needed any more; they read as zeros. The request's id."""
        if not self._can_discard:
            raise OSError(errno.EOPNOTSUPP, f"the backend of disk {self.name} cannot discard")
        return self._front.submit_discard(sector, count)

    @property
    def request_sectors_max(self) -> int:
        """Sectors of the largest single request."""
        return self._front.transfer_sectors_max

    @property
    def in_flight(self) -> int:
        """Requests submitted and not completed."""
        return self._front.in_flight

    def completions(self, timeout_s: float = 0.0) -> list[Completion]:
        """What has completed; waits for the first one up to the timeout."""
        done = self._front.take_all()
        if done:
            return done
        until = self.runtime.system_time_ns() + int(timeout_s * 1e9)
        left = 0.0
        while True:
            self._wait(left)
            done = self._front.take_all()
            left = (until - self.runtime.system_time_ns()) / 1e9
            if done or left <= 0 or not self._front.in_flight:
                return done

    def finish(self, request_id: int) -> bytes:
        """Wait for one submitted request; what a read without a buffer brought. OSError when it failed.

        Others' completions stay for whoever asks for them.
        """
        while (completion := self._front.take(request_id)) is None:
            self._wait(MAX_EXTRA_WAIT_S)
        if completion.errno:
            raise OSError(completion.errno, f"disk {self.name}: {os.strerror(completion.errno)}")
        return completion.data

    # ---- blocking calls ----------------------------------------------------------------------------------------------

    def read(self, sector: int, count: int) -> bytes:
        """`count` sectors from `sector` on. OSError EIO when the backend says so or does not answer in time."""
        if count <= PIECE_SECTORS:
            return self.finish(self.submit_read(sector, count))
        return b"".join(self._finish_all([self.submit_read(at, part) for at, part in self._pieces(sector, count)]))

    def read_into(self, sector: int, buffer: Buffer) -> None:
        """Fill a writable buffer with whole sectors from `sector` on: `read` for memory that is used again."""
        view = memoryview(buffer).cast("B")
        count = self._whole_sectors(view)
        if count <= PIECE_SECTORS:
            self.finish(self.submit_read(sector, count, view))
            return
        self._finish_all([
            self.submit_read(at, part, view[(at - sector) * SECTOR_SIZE : (at - sector + part) * SECTOR_SIZE])
            for at, part in self._pieces(sector, count)
        ])

    def write(self, sector: int, data: Buffer) -> None:
        """Write whole sectors. When it returns the backend has them; `flush` makes them durable."""
        view = memoryview(data).cast("B")
        self._finish_all([
            self.submit_write(at, view[(at - sector) * SECTOR_SIZE : (at - sector + part) * SECTOR_SIZE])
            for at, part in self._pieces(sector, self._whole_sectors(view))
        ])

    def flush(self) -> None:
        """Everything that a write returned for before this call is on the image's medium when this returns."""
        self.finish(self.submit_flush())

    def discard(self, sector: int, count: int) -> None:
        self.finish(self.submit_discard(sector, count))

    def _finish_all(self, ids: list[int]) -> list[bytes]:
        """Wait for every part of one call; the first error is raised when all are done, so that none is left over."""
        data, errors = [], []
        for request_id in ids:
            try:
                data.append(self.finish(request_id))
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return data

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _wait(self, most_s: float) -> None:
        """Let things happen; complete with EIO what is past its deadline."""
        self.runtime.wait(self._front.patience_s(most_s))
        self._front.expire(self.runtime.system_time_ns())

    def _wait_for_room(self) -> None:
        """Until others have given pages back. OSError ETIMEDOUT when none come back."""
        until, free = self.runtime.system_time_ns() + int(2e9 * self._timeout_s), self._front.free_pages
        while self._front.free_pages <= free:
            if self.runtime.system_time_ns() > until:
                raise OSError(errno.ETIMEDOUT, f"disk {self.name}: no pages became free; {free} are")
            self._wait(MAX_EXTRA_WAIT_S)

    def _pieces(self, sector: int, count: int) -> list[tuple[int, int]]:
        """(first sector, sectors) of each request that so many sectors take; none is submitted if not all can be."""
        step = min(self.request_sectors_max, PIECE_SECTORS)
        if count > step and not 0 <= sector <= self.sectors - count:
            raise LocalError(f"disk {self.name}: {count} sectors from {sector} on, of {self.sectors}")
        return [(at, min(step, sector + count - at)) for at in range(sector, sector + count, step)]

    def _whole_sectors(self, view: memoryview) -> int:
        count, rest = divmod(len(view), SECTOR_SIZE)
        if rest:
            raise LocalError(f"disk {self.name}: {len(view)} bytes are not whole sectors of {SECTOR_SIZE}")
        return count

    def _check_writable(self) -> None:
        if self.readonly:
            raise OSError(errno.EROFS, f"disk {self.name} is read-only")
