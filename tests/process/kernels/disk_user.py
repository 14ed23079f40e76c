"""A guest that does what its first argument names with its disk; an exception is the test's failure."""

import errno
import time
from typing import Any

from hvd.domains.block.frontend import BlockFrontend
from hvd.transport import messages as m
from hvd.transport._native import BlkFront
from hvd.transport.errors import LocalError
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.protocols.block import INDIRECT_SEGMENTS_MAX

AUTO_READY = False
TIMEOUT_NS = 300_000_000
"""Of the disks of `timeout` and `paused_in_flight`: they end what a machine has kept waiting longer, too."""
DEADLINE_S = 60.0
publish = BlockFrontend.publish


def fails(code, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == code, error
    else:
        raise AssertionError(f"no OSError {code}")


def pattern(sectors, salt=0):
    return b"".join((index * 7 + salt).to_bytes(8, "little") * 64 for index in range(sectors))


def operations(guest):
    disk = guest.disk("xvda")
    for sector, count in ((0, 1), (3, 8), (17, 88), (200, 96), (disk.sectors - 1, 1)):
        disk.write(sector, pattern(count, sector))
        assert disk.read(sector, count) == pattern(count, sector)
    disk.flush()
    disk.discard(200, 96)
    assert disk.read(200, 96) == bytes(96 * 512)
    assert disk.read(296, 1) == bytes(512)


def megabytes(guest):
    disk = guest.disk()
    assert disk.request_sectors_max == 2048
    request = disk.submit_write(0, pattern(2048))
    while not (done := disk.completions(10)):
        continue
    assert [(completion.id, completion.errno) for completion in done] == [(request, 0)]
    disk.write(5, pattern(9000, 5))  # several requests, more than the pool holds at once
    assert disk.read(5, 9000) == pattern(9000, 5)


def batches(guest):
    """Many requests of one call, into memory of ours and into bytes; more than the pool has pages for at once."""
    disk = guest.disk()
    sectors = [8 * ((index * 7) % 1500) for index in range(1500)]
    data = b"".join(pattern(8, index) for index in range(1500))
    ids = disk.submit_writes(sectors, 8, data)
    assert len(set(ids)) == 1500 and ids == sorted(ids)
    assert finished(disk, 1500) == dict.fromkeys(ids, (0, b""))
    back = bytearray(len(data))
    ids = disk.submit_reads(sectors, 8, back)
    assert finished(disk, 1500) == dict.fromkeys(ids, (0, b""))
    assert back == data
    ids = disk.submit_reads(sectors[:40], 8)
    brought = finished(disk, 40)
    assert [brought[request_id] for request_id in ids] == [(0, pattern(8, index)) for index in range(40)]
    assert disk.submit_reads([], 8) == []


def finished(disk, count):
    """So many completions, whatever their order."""
    found: dict[int, Any] = {}
    while len(found) < count:
        found |= {done.id: (done.errno, done.data) for done in disk.completions(10)}
    assert disk.completions(0) == []
    return found


def into_memory(guest):
    """`read_into` fills just the memory it is given, whole."""
    disk = guest.disk()
    disk.write(3, pattern(3000, 9))
    for count in (1, 8, 512, 513, 3000):
        memory = bytearray(b"\xee" * (count * 512 + 1024))
        disk.read_into(3, memoryview(memory)[512:-512])
        assert memory == b"\xee" * 512 + pattern(3000, 9)[: count * 512] + b"\xee" * 512


def many(guest):
    disk = guest.disk()
    ids = [disk.submit_write(8 * index, pattern(8, index)) for index in range(500)]
    done: list[Any] = []
    while disk.in_flight or len(done) < len(ids):
        done += disk.completions(10)
    assert sorted(completion.id for completion in done) == ids
    assert all(disk.read(8 * index, 8) == pattern(8, index) for index in range(500))


def buffers(guest):
    """Requests on memory of the disk's own, large and small; it goes back when they are done with it."""
    disk = guest.disk()
    free = disk._front.free_pages
    first, second = disk.buffer(2048), disk.buffer(9)
    first[:] = pattern(2048, 3)
    assert disk.finish(disk.submit_write(0, first)) == b""
    assert disk.read(0, 2048) == pattern(2048, 3), "read the other way"
    disk.write(3000, pattern(9, 4))
    assert disk.finish(disk.submit_read(3000, 9, second)) == b""
    assert second == pattern(9, 4)
    first[:] = bytes(len(first))
    disk.read_into(0, first)
    assert first == pattern(2048, 3), "in several pieces"
    disk.release(first)
    disk.release(second)
    assert disk._front.free_pages == free
    try:
        disk.buffer(disk.sectors)
    except LocalError as error:
        assert "disk xvda" in str(error), error
    else:
        raise AssertionError("more than half of the pool was lent")


def readonly(guest):
    disk = guest.disk()
    assert disk.readonly
    assert disk.read(0, 1) == bytes(512)
    fails(errno.EROFS, disk.write, 0, bytes(512))
    fails(errno.EOPNOTSUPP, disk.discard, 0, 1)


def nonsense(guest):
    disk = guest.disk()
    end = disk.sectors
    for call, *arguments in (
        *((disk.read, *place) for place in ((-1, 1), (end, 1), (end - 1, 2), (0, 0))),
        *((disk.read, *place) for place in ((2**63, 1), (0, 2**64), (-(2**63), 1))),
        (disk.read, 0, end + 1),
        (disk.read, -1, 3000),
        (disk.write, end - 1, bytes(1024)),
        (disk.write, 0, bytes(100)),
        (disk.read_into, 0, bytearray(100)),
        (disk.read_into, 0, bytes(512)),
        (disk.submit_read, 0, 4096),
        (disk.submit_read, 0, 1, bytearray(511)),
        (disk.submit_reads, [0, end], 1),
        (disk.submit_reads, [0, 1], 1, bytearray(512)),
        (disk.submit_writes, [0, 1], 1, bytes(1025)),
        (disk.discard, end - 1, 2),
    ):
        try:
            call(*arguments)
        except LocalError:
            continue
        raise AssertionError(f"{call.__name__}{arguments} was let through")
    assert disk.in_flight == 0, "what was refused is not submitted in part"


def move_to_other_pages(guest, disk):
    """A pool whose refs nobody has had, under the same ring."""
    disk._front.detach()
    disk._data = guest.runtime.grants.share(disk.backend, len(disk._data.view) // PAGE_SIZE)
    disk._front = BlkFront(disk._data.view, disk._data.ref, 20 * 10**9)
    guest.runtime._handlers[disk._port] = disk._front.collect
    disk._front.attach(disk._ring, disk._endpoint, disk.name, disk.sectors, INDIRECT_SEGMENTS_MAX)


def not_persistent(guest):
    """Its grants are free the moment an answer is there."""
    disk = guest.disk()
    for count in (1, 88, 2048):
        disk.write(0, pattern(count))
        guest.runtime.hypercalls.call(m.GnttabEndAccess(disk._data.ref, 1))
        assert guest.runtime.hypercalls.call(m.GnttabShare(disk._data.id, 0, 1)) > 0
        move_to_other_pages(guest, disk)
        assert disk.read(0, count) == pattern(count)


def served(call, *arguments):
    """What the backend answers as soon as it does so in time."""
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            assert error.errno == errno.EIO and time.monotonic() < until, error


def timeout(guest):
    """Its backend is stopped and goes on as the test says."""
    disk, store = guest.disk(), guest.runtime.store
    whole = disk._front.free_pages
    served(disk.write, 0, pattern(8))
    guest.runtime.wait_until(lambda: disk._front.free_pages == whole, "all answers", 20)

    def told(word):
        guest.runtime.wait_until(lambda: store.read("data/" + word) is not None, word, 20)

    store.watch("data", lambda path: None)
    guest.ready()
    told("stopped")
    started = time.monotonic()
    request = disk.submit_write(0, pattern(8, 1))
    assert [(done.id, done.errno) for done in disk.completions(20)] == [(request, errno.EIO)]
    assert time.monotonic() - started >= 0.3
    assert disk._front.free_pages == whole - 1, "a stopped backend may still read this page"
    store.write("data/expired", "1")
    told("going")
    guest.runtime.wait_until(lambda: disk._front.free_pages == whole, "the late answer", 20)
    assert disk.completions(0) == [], "it was completed already"
    served(disk.write, 0, pattern(8, 2))
    assert served(disk.read, 0, 8) == pattern(8, 2)


def paused_ns(guest):
    return guest.runtime.shared_info.read().paused_ns


def own_time_ns(guest):
    """The host's time but for pauses, none of which falls between two looks of ours."""
    while True:
        paused, now = paused_ns(guest), time.monotonic_ns()
        if paused_ns(guest) == paused:
            return now - paused


def paused_in_flight(guest):
    """Its backend is stopped while it waits, and then it itself.

    What it waits by its own time may be more than its disk does: then it was kept waiting, and asks once more.
    """
    disk, store = guest.disk(), guest.runtime.store
    store.watch("data", lambda path: None)
    guest.ready()
    guest.runtime.wait_until(lambda: store.read("data/stopped") is not None, "stopped", 20)
    paused = paused_ns(guest)
    asked_ns = own_time_ns(guest)
    disk.submit_write(0, pattern(8, 1))
    store.write("data/waiting", "1")

    def ask_again(done):
        nonlocal asked_ns
        for _ in (each for each in done if each.errno):
            assert own_time_ns(guest) >= asked_ns + TIMEOUT_NS, "the pause was counted"
            asked_ns = own_time_ns(guest)
            disk.submit_write(0, pattern(8, 1))

    while paused_ns(guest) < paused + 500_000_000:
        ask_again(disk.completions(0.001))
    ask_again(disk.completions(0))
    store.write("data/went_on", "1")
    while disk.in_flight:
        ask_again(disk.completions(1))


def scattered_ring(guest):
    keys = guest.disk().keys
    assert keys["scattered"] == "1"
    megabytes(guest)
    batches(guest)


def grant_page_by_page(disk):
    """Its ring again: each page under a ref of its own, the last page first."""
    pages = disk._ring_pages
    count = len(pages.view) // PAGE_SIZE
    call = disk.runtime.hypercalls.call
    call(m.GnttabEndAccess(pages.ref, count))
    return [call(m.GnttabShare(pages.id, index, 1)) for index in reversed(range(count))][::-1]


def main(guest):
    globals()[guest.args[0]](guest)


if __name__ == "hvd_guest":

    def publish_as_told(disk, backend_keys):
        keys = publish(disk, backend_keys)
        if disk.keys.get("persistent") == "0":
            keys["feature-persistent"] = "0"
        if disk.keys.get("scattered") == "1":
            refs = grant_page_by_page(disk)
            assert refs != sorted(refs)
            keys |= {f"ring-ref{index}": str(ref) for index, ref in enumerate(refs)}
        return keys

    BlockFrontend.publish = publish_as_told  # type: ignore[method-assign]
