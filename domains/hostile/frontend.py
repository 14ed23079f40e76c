"""A guest that abuses its disk's ring and XenStore keys as its first argument says, and looks what comes of it.

What it must not be able to do is an assertion: it powers off when its disk did what it should have.
"""

from __future__ import annotations

import errno
import itertools
import struct
import threading
from collections.abc import Callable
from typing import Any

from hvd.domains.guest import Guest
from hvd.transport.ids import DOM0, DomId
from hvd.transport.protocols import block
from hvd.transport.xenbus_state import XenbusState

AUTO_READY = False
UNKNOWN_REF = 0x00FF_FFFF
ERRNO = {0: 0, -1: errno.EIO, -2: errno.EOPNOTSUPP}
ids = itertools.count(2**40)


def raw(disk: Any, slot: bytes, request_id: int) -> int:
    """Send any 112 bytes past the frontend; the errno of the answer, which must be this request's."""
    if disk._ring.push(slot.ljust(block.REQUEST_SIZE, b"\0")):
        disk._endpoint.notify()
    while (answer := disk._ring.pop()) is None:
        assert disk.runtime.poll((disk._port,), 20), "no answer"
    answered, _, status = struct.unpack("<QBxhxxxx", answer)
    assert answered == request_id
    return ERRNO[status]


def segment(ref: int, first: int = 0, last: int = 7) -> bytes:
    return struct.pack("<IBBxx", ref, first, last)


def transfer(operation: int, request_id: int, sector: int, segments: bytes, claimed: int | None = None) -> bytes:
    claimed = len(segments) // 8 if claimed is None else claimed
    return struct.pack("<BBHxxxxQQ", operation, claimed, 0, request_id, sector) + segments


def indirect(operation: int, request_id: int, sector: int, count: int, ref: int) -> bytes:
    return struct.pack("<BBHxxxxQQHxxI", block.Operation.INDIRECT, operation, count, request_id, sector, 0, ref)


def discard(request_id: int, sector: int, sectors: int) -> bytes:
    return struct.pack("<BBHxxxxQQQ", block.Operation.DISCARD, 0, 0, request_id, sector, sectors)


def bad_requests(guest: Guest) -> None:
    """Each is answered with an error; the disk goes on."""
    disk = guest.disk()
    ref, end = disk._data.ref, disk.sectors
    op, good = block.Operation, segment(disk._data.ref)

    def expect(code: int, encode: Callable[[int], bytes]) -> None:
        request_id = next(ids)
        assert raw(disk, encode(request_id), request_id) == code, (code, encode(request_id).hex())

    expect(errno.EIO, lambda i: transfer(op.WRITE, i, end, good))
    expect(errno.EIO, lambda i: transfer(op.WRITE, i, end - 7, good))
    expect(errno.EIO, lambda i: transfer(op.READ, i, 2**64 - 1, good))
    expect(errno.EIO, lambda i: transfer(op.READ, i, 2**64 - 8, good))
    expect(errno.EIO, lambda i: transfer(op.READ, i, 0, b""))
    expect(errno.EIO, lambda i: transfer(op.WRITE, i, 0, segment(ref, 5, 4)))
    expect(errno.EIO, lambda i: transfer(op.WRITE, i, 0, segment(ref, 0, 8)))
    expect(errno.EIO, lambda i: transfer(op.WRITE, i, 0, segment(UNKNOWN_REF)))
    expect(errno.EIO, lambda i: transfer(op.WRITE, i, 0, segment(0)))
    expect(errno.EIO, lambda i: transfer(op.WRITE, i, 0, good * 11, claimed=12))
    expect(errno.EIO, lambda i: indirect(op.WRITE, i, 0, 257, ref))
    expect(errno.EIO, lambda i: indirect(op.WRITE, i, 0, 0, ref))
    expect(errno.EIO, lambda i: indirect(op.INDIRECT, i, 0, 1, ref))
    expect(errno.EIO, lambda i: indirect(op.WRITE, i, 0, 1, UNKNOWN_REF))
    expect(errno.EIO, lambda i: discard(i, end - 1, 2))
    expect(errno.EIO, lambda i: discard(i, 1, 2**64 - 1))
    expect(errno.EOPNOTSUPP, lambda i: transfer(77, i, 0, good))
    disk.write(0, b"good" * 128)
    assert disk.read(0, 1) == b"good" * 128


def raw_write_to_readonly(guest: Guest) -> None:
    disk = guest.disk()
    good = segment(disk._data.ref)
    writes: tuple[Callable[[int], bytes], ...] = (
        lambda i: transfer(block.Operation.WRITE, i, 0, good), lambda i: discard(i, 0, 8),
    )  # fmt: skip
    for encode in writes:
        request_id = next(ids)
        assert raw(disk, encode(request_id), request_id) == errno.EIO


def wait_closed(guest: Guest) -> str:
    """Until the backend has closed the device and our own end knows; the backend's reason."""
    frontend = guest._frontends["vbd", "51712"]
    guest.runtime.wait_until(lambda: frontend.state is XenbusState.CLOSED, "the device's end", 20)
    return frontend.error


def index_jump(guest: Guest) -> None:
    """The device is closed, the reason stands in XenStore."""
    disk = guest.disk()
    for jump in (1000, 0x8000_0000):
        looks = guest.runtime._handlers[disk._port]
        guest.runtime._handlers[disk._port] = lambda: None  # its own end would find the index changed
        disk._ring_pages.view[0:4] = jump.to_bytes(4, "little")
        disk._endpoint.notify()
        assert "vbd 51712 of domain" in wait_closed(guest)
        guest.runtime._handlers[disk._port] = looks
        guest.runtime.store.write_all("device/vbd/51712", {"hvd-incarnation": str(jump), "state": "1"})
        guest.runtime.wait_until(lambda: disk._front.attached, "a second chance", 20)
        assert disk.read(0, 1) == bytes(512)


def double_fetch(guest: Guest) -> None:
    """While the backend looks at its segments, they change: to refs not granted, to sectors beyond the page."""
    disk = guest.disk()
    view, ref, table = disk._data.view, disk._data.ref, 0
    good, bad = segment(ref + 1) * 256, (segment(UNKNOWN_REF) + segment(ref + 1, 0, 255)) * 128
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            view[table : table + 2048] = bad
            view[table : table + 2048] = good

    thread = threading.Thread(target=flip)
    thread.start()
    answers = set()
    for _ in range(200):
        request_id = next(ids)
        slot = indirect(block.Operation.WRITE, request_id, 0, 256, ref)
        answers.add(raw(disk, slot, request_id))
    over.set()
    thread.join()
    assert answers <= {0, errno.EIO}
    disk.write(0, b"good" * 128)


GARBAGE: tuple[dict[str, str], ...] = (
    {"event-channel": "seven"},
    {"event-channel": "0"},
    {"event-channel": "-1"},
    {"event-channel": str(2**70)},
    {"event-channel": "9" * 2000},
    {"event-channel": "131071"},
    {"ring-ref": ""},
    {"ring-ref": str(2**64)},
    {"ring-ref": str(2**31)},
    {"protocol": "m68k-abi"},
)


def garbage_keys(guest: Guest) -> None:
    disk, store = guest.disk(), guest.runtime.store
    incarnation = store.read_text(store.read_text("device/vbd/51712/backend") + "/hvd-incarnation")
    for number, garbage in enumerate(GARBAGE, 100):
        session = f"{guest.incarnation}.{number}"  # of ours: it is closed to us, and our own end does not knock
        keys = {"hvd-session": session, "hvd-backend-incarnation": incarnation, "state": "3"}
        store.write_all("device/vbd/51712", garbage | keys)
        error = wait_closed(guest)
        assert error.startswith("vbd 51712 of domain") and len(error) > 30, error
        store.write_all("device/vbd/51712", {"hvd-incarnation": str(number + 1000), "state": "1"})
        guest.runtime.wait_until(lambda: disk._front.attached, f"a second chance after {garbage}", 5)
    assert disk.read(0, 1) == bytes(512)


def unmappable(guest: Guest) -> None:
    """XSA-362: rings and segments whose pages the backend may not map, or not any more, or only read."""
    disk, store, grants = guest.disk(), guest.runtime.store, guest.runtime.grants
    backend = DomId(int(store.read_text("device/vbd/51712/backend-id")))
    gone, others = grants.share(backend, 1), grants.share(DOM0, 1)
    grants.unshare(gone)
    refs = [gone.ref, others.ref, grants.share(backend, 1, readonly=True).ref, 0, 1, UNKNOWN_REF]
    for ref in refs[:2] + refs[3:]:
        request_id = next(ids)
        slot = transfer(block.Operation.WRITE, request_id, 0, segment(disk._data.ref) + segment(ref))
        assert raw(disk, slot, request_id) == errno.EIO, ref
    incarnation = store.read_text(store.read_text("device/vbd/51712/backend") + "/hvd-incarnation")
    for number, ref in enumerate(refs, 200):
        keys = {"hvd-session": f"{guest.incarnation}.{number}", "hvd-backend-incarnation": incarnation, "state": "3"}
        store.write_all("device/vbd/51712", {"ring-ref": str(ref)} | keys)
        assert f"{ref}" in wait_closed(guest)
        store.write_all("device/vbd/51712", {"hvd-incarnation": str(number + 1000), "state": "1"})
        guest.runtime.wait_until(lambda: disk._front.attached, f"a second chance after ref {ref}", 5)
    assert disk.read(0, 1) == bytes(512)


def reconnects(guest: Guest) -> None:
    """XSA-350: connect and disconnect as fast as can be."""
    store = guest.runtime.store
    for number in range(200):
        store.write_all("device/vbd/51712", {"hvd-session": f"x.{number}", "state": str(1 + number % 6)})


def main(guest: Guest) -> None:
    globals()[guest.args[0]](guest)
