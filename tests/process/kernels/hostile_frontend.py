"""A guest that abuses its disk's ring and XenStore keys as its first argument says, and looks what comes of it."""

import errno
import struct
import threading

from hvd.domains.block.shadow import Request
from hvd.transport.protocols import block
from hvd.transport.xenbus_state import XenbusState

AUTO_READY = False
UNKNOWN_REF = 0x00FF_FFFF


def raw(disk, slot, request_id):
    """Send any 112 bytes; the errno of the answer."""
    request = Request(request_id, slot.ljust(block.REQUEST_SIZE, b"\0"), 99, 0, None, disk._deadline())
    try:
        disk._finish(disk._submit(request))
    except OSError as error:
        return error.errno
    return 0


def segment(ref, first=0, last=7):
    return struct.pack("<IBBxx", ref, first, last)


def bad_requests(guest):
    """Each is answered with an error; the disk goes on."""
    disk = guest.disk()
    ref, end = disk._data.ref, disk.sectors
    op, good = block.Operation, segment(disk._data.ref)

    def expect(code, encode):
        request_id = disk._shadow.next_id()
        assert raw(disk, encode(request_id), request_id) == code, (code, encode(request_id).hex())

    write = block.encode_transfer
    expect(errno.EIO, lambda i: write(op.WRITE, i, end, good))
    expect(errno.EIO, lambda i: write(op.WRITE, i, end - 7, good))
    expect(errno.EIO, lambda i: write(op.READ, i, 2**64 - 1, good))
    expect(errno.EIO, lambda i: write(op.READ, i, 2**64 - 8, good))
    expect(errno.EIO, lambda i: write(op.READ, i, 0, b""))
    expect(errno.EIO, lambda i: write(op.WRITE, i, 0, segment(ref, 5, 4)))
    expect(errno.EIO, lambda i: write(op.WRITE, i, 0, segment(ref, 0, 8)))
    expect(errno.EIO, lambda i: write(op.WRITE, i, 0, segment(UNKNOWN_REF)))
    expect(errno.EIO, lambda i: write(op.WRITE, i, 0, segment(0)))
    expect(errno.EIO, lambda i: struct.pack("<BBHxxxxQQ", op.WRITE, 12, 0, i, 0) + good * 11)
    expect(errno.EIO, lambda i: block.encode_indirect(op.WRITE, i, 0, 257, ref))
    expect(errno.EIO, lambda i: block.encode_indirect(op.WRITE, i, 0, 0, ref))
    expect(errno.EIO, lambda i: block.encode_indirect(op.INDIRECT, i, 0, 1, ref))
    expect(errno.EIO, lambda i: block.encode_indirect(op.WRITE, i, 0, 1, UNKNOWN_REF))
    expect(errno.EIO, lambda i: block.encode_discard(i, end - 1, 2))
    expect(errno.EIO, lambda i: block.encode_discard(i, 1, 2**64 - 1))
    expect(errno.EOPNOTSUPP, lambda i: struct.pack("<BBHxxxxQQ", 77, 1, 0, i, 0) + good)
    disk.write(0, b"good" * 128)
    assert disk.read(0, 1) == b"good" * 128


def raw_write_to_readonly(guest):
    disk = guest.disk()
    good = segment(disk._data.ref)
    for encode in (
        lambda i: block.encode_transfer(block.Operation.WRITE, i, 0, good),
        lambda i: block.encode_discard(i, 0, 8),
    ):
        request_id = disk._shadow.next_id()
        assert raw(disk, encode(request_id), request_id) == errno.EIO


def wait_closed(guest):
    """Until the backend has closed the device and our own end knows; the backend's reason."""
    frontend = guest._frontends["vbd", "51712"]
    guest.runtime.wait_until(lambda: frontend.state is XenbusState.CLOSED, "the device's end", 20)
    return frontend.error


def index_jump(guest):
    """The device is closed, the reason stands in XenStore."""
    disk = guest.disk()
    for jump in (1000, 0x8000_0000):
        disk._ring_pages.view[0:4] = jump.to_bytes(4, "little")
        disk._endpoint.notify()
        assert "vbd 51712 of domain" in wait_closed(guest)
        guest.runtime.store.write_all("device/vbd/51712", {"hvd-incarnation": str(jump), "state": "1"})
        guest.runtime.wait_until(lambda: disk._connected, "a second chance", 20)
        assert disk.read(0, 1) == bytes(512)


def double_fetch(guest):
    """While the backend looks at its segments, they change: to refs not granted, to sectors beyond the page."""
    disk = guest.disk()
    run = disk._pool.take(2)
    view, ref = disk._data.view, disk._data.ref + run.first
    table = run.first * 4096
    good, bad = segment(ref + 1) * 256, (segment(UNKNOWN_REF) + segment(ref + 1, 0, 255)) * 128
    over = threading.Event()

    def flip():
        while not over.is_set():
            view[table : table + 2048] = bad
            view[table : table + 2048] = good

    thread = threading.Thread(target=flip)
    thread.start()
    answers = set()
    for _ in range(200):
        request_id = disk._shadow.next_id()
        slot = block.encode_indirect(block.Operation.WRITE, request_id, 0, 256, ref)
        answers.add(raw(disk, slot, request_id))
    over.set()
    thread.join()
    assert answers <= {0, errno.EIO}
    disk._pool.give_back(run)
    disk.write(0, b"good" * 128)


GARBAGE = (
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


def garbage_keys(guest):
    disk, store = guest.disk(), guest.runtime.store
    incarnation = store.read_text(store.read_text("device/vbd/51712/backend") + "/hvd-incarnation")
    for number, garbage in enumerate(GARBAGE, 100):
        keys = {"hvd-session": f"{number}.0", "hvd-backend-incarnation": incarnation, "state": "3"}
        store.write_all("device/vbd/51712", garbage | keys)
        error = wait_closed(guest)
        assert error.startswith("vbd 51712 of domain") and len(error) > 30, error
        store.write_all("device/vbd/51712", {"hvd-incarnation": str(number + 1000), "state": "1"})
        guest.runtime.wait_until(lambda: disk._connected, f"a second chance after {garbage}", 5)
    assert disk.read(0, 1) == bytes(512)


def reconnects(guest):
    """XSA-350: connect and disconnect as fast as can be."""
    store = guest.runtime.store
    for number in range(200):
        store.write_all("device/vbd/51712", {"hvd-session": f"x.{number}", "state": str(1 + number % 6)})


def main(guest):
    globals()[guest.args[0]](guest)
