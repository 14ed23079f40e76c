"""Attacks on granted pages: writing what is read-only, keeping what was taken back, reading what lies beside it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvd.domains.grants import MappedPages
from hvd.domains.guest import Guest
from hvd.domains.hostile.processes import LIBC, OURS
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, GrantRef, Handle
from hvd.transport.pages import Extent

LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
FAILED = ctypes.c_void_p(-1).value
SEALS = {"seal": 1, "shrink": 2, "grow": 4, "write": 8, "future": 16}
PUNCH_HOLE_KEEP_SIZE = 3
PAGE = mmap.PAGESIZE
DEADLINE_S = 20.0
OUTLIVES_S = 6.0
EXIT_THREAD = {"x86_64": 60, "aarch64": 93}[os.uname().machine]


def told(guest: Guest, name: str) -> str:
    """Wait for a node of ours that the suite writes."""
    path = f"data/{name}"
    guest.runtime.store.watch(path, lambda _: None)
    guest.runtime.wait_until(lambda: guest.runtime.store.read(path) is not None, path, DEADLINE_S)
    return guest.runtime.store.read_text(path)


def _mapping(fd: int, protection: int) -> int:
    address = LIBC.mmap(None, PAGE, protection, mmap.MAP_SHARED, fd, 0)
    if address in (None, FAILED):
        raise OSError(ctypes.get_errno(), "mmap")
    return int(address)


def map_writable(fd: int) -> None:
    ctypes.memmove(_mapping(fd, mmap.PROT_READ | mmap.PROT_WRITE), OURS, len(OURS))


def make_writable(fd: int) -> None:
    address = _mapping(fd, mmap.PROT_READ)
    if LIBC.mprotect(ctypes.c_void_p(address), PAGE, mmap.PROT_READ | mmap.PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.memmove(address, OURS, len(OURS))


def write_descriptor(fd: int) -> None:
    os.pwrite(fd, OURS, 0)


def _reopened(path: str) -> Callable[[int], None]:
    def attack(fd: int) -> None:
        again = os.open(path.format(fd=fd, pid=Path("/proc/self").readlink()), os.O_RDWR)
        try:
            os.pwrite(again, OURS, 0)
        finally:
            try:
                map_writable(again)
            finally:
                os.close(again)

    return attack


def punch(fd: int) -> None:
    if LIBC.fallocate(fd, PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(PAGE)):
        raise OSError(ctypes.get_errno(), "fallocate")


def _sealed(name: str) -> Callable[[int], None]:
    def attack(fd: int) -> None:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS[name])

    return attack


def change_flags(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)
    os.pwrite(fd, OURS, 0)


def send_file(fd: int) -> None:
    source = os.memfd_create("source")
    os.write(source, OURS)
    os.sendfile(fd, source, 0, len(OURS))


def splice(fd: int) -> None:
    read, write = os.pipe()
    os.write(write, OURS)
    os.splice(read, fd, len(OURS), offset_dst=0)


WAYS: dict[str, Callable[[int], Any]] = {
    "mmap": map_writable, "mprotect": make_writable, "pwrite": write_descriptor,
    "reopen /proc/self/fd": _reopened("/proc/self/fd/{fd}"), "reopen /dev/fd": _reopened("/dev/fd/{fd}"),
    "reopen /proc/pid/fd": _reopened("/proc/{pid}/fd/{fd}"),
    "ftruncate": lambda fd: os.ftruncate(fd, 0), "grow": lambda fd: os.ftruncate(fd, 1 << 20), "punch": punch,
    "fcntl": change_flags, "sendfile": send_file, "splice": splice,
    "seal write": _sealed("write"), "seal future": _sealed("future"), "seal seal": _sealed("seal"),
}  # fmt: skip


def write_granted(guest: Guest, mode: str) -> dict[str, str]:
    """Map a grant, `readonly` or `writable`, and try every way to write it; what each came to, and the size then."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    _, (fd,) = guest.runtime.hypercalls.call(m.GnttabMap(owner, ref, 0, mode == "writable"))
    outcome = {}
    for name, attack in WAYS.items():
        try:
            attack(fd)
        except OSError as error:
            outcome[name] = type(error).__name__
        else:
            outcome[name] = "worked"
    outcome["size"] = str(os.fstat(fd).st_size)
    return outcome


def _map_granted(guest: Guest) -> MappedPages:
    """The page that the victim has granted."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    return guest.runtime.grants.map(owner, ref, 1, writable=True)


def keep_mapping(guest: Guest) -> str:
    """XSA-396: map a page, and read it when its owner believes to have it back."""
    mapped = _map_granted(guest)
    guest.runtime.store.write("data/mapped", "1")
    told(guest, "go")
    return f"the page holds {bytes(mapped.view[:64])!r}"


def forge_unmap(guest: Guest) -> str:
    """Give a mapping back and keep it all the same: what a process has mapped no hypercall takes from it."""
    mapped = _map_granted(guest)
    guest.runtime.hypercalls.call(m.GnttabUnmap(mapped.handle))
    guest.runtime.store.write("data/mapped", "1")
    told(guest, "go")
    return f"the page holds {bytes(mapped.view[:64])!r}"


def forge_death(guest: Guest) -> str:
    """Look dead: no ports, no nodes but one, the console's channel marked closed. The page stays mapped."""
    mapped = _map_granted(guest)
    guest.runtime.console_endpoint.mark_closed()
    guest.runtime.hypercalls.call(m.EvtchnReset(DOMID_SELF))
    for name in guest.runtime.store.directory(f"/local/domain/{guest.domid}"):
        if name != "data":
            with contextlib.suppress(HypercallError):  # the toolstack's
                guest.runtime.store.remove(name)
    guest.runtime.store.write("data/mapped", "1")
    told(guest, "go")
    return f"the page holds {bytes(mapped.view[:64])!r}"


def outlive(guest: Guest) -> None:
    """Die, and leave a child behind that goes on writing to a granted page."""
    mapped = _map_granted(guest)
    until = time.monotonic() + OUTLIVES_S
    if os.fork() == 0:
        number = 0
        while time.monotonic() < until:
            number += 1
            mapped.view[0:8] = b"%08d" % (number % 10**8)
        os._exit(0)
    guest.runtime.store.write("data/mapped", "1")
    told(guest, "go")
    os._exit(1)


def read_beyond(guest: Guest) -> str:
    """XSA-403: read the whole of what the descriptor of a granted page shows."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    _, (fd,) = guest.runtime.hypercalls.call(m.GnttabMap(owner, ref, 1, True))
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    return f"{len(data)} bytes: {data.replace(bytes(1), b'')!r}"


def unmap_twice(guest: Guest) -> str:
    """XSA-218, XSA-224: map once, then give it back with the handle of that mapping and with every handle near it."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    call = guest.runtime.hypercalls.call
    value, _ = call(m.GnttabMap(owner, ref, 1, True))
    unmapped = 0
    for handle in (*[value["handle"]] * 5, *range(max(1, value["handle"] - 20), value["handle"] + 20)):
        try:
            call(m.GnttabUnmap(Handle(handle)))
            unmapped += 1
        except HypercallError as error:
            assert error.errno == errno.EINVAL
    return f"{unmapped} of 45 were carried out"


def copy_out_of_range(guest: Guest) -> str:
    """Grant copies of nothing, beyond a page, from and to others: the statuses."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    mine = guest.runtime.grants.share(DOM0, 1).ref
    here, there = m.CopyEnd(DOMID_SELF, mine, 0), m.CopyEnd(owner, ref, 0)
    segments = [
        m.CopySegment(here, there, 0), m.CopySegment(m.CopyEnd(DOMID_SELF, mine, 4000), there, 200),
        m.CopySegment(here, m.CopyEnd(owner, ref, 4090), 100), m.CopySegment(here, m.CopyEnd(owner, GrantRef(0), 0), 8),
        m.CopySegment(here, there, 8), m.CopySegment(here, m.CopyEnd(DOM0, GrantRef(8), 0), 8),
    ]  # fmt: skip
    return f"statuses {guest.runtime.hypercalls.call(m.GnttabCopy(segments))}"


def copy_batches(guest: Guest, *counts: str) -> str:
    """XSA-318, XSA-380: batches of so many copies, each into another's page."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    mine = guest.runtime.grants.share(DOM0, 1)
    mine.view[: len(OURS)] = OURS
    segment = m.CopySegment(m.CopyEnd(DOMID_SELF, mine.ref, 0), m.CopyEnd(owner, ref, 0), len(OURS))
    refused = 0
    for count in counts:
        try:
            guest.runtime.hypercalls.call(m.GnttabCopy([segment] * int(count)))
        except HypercallError as error:
            assert error.errno == errno.EBADMSG, error
            refused += 1
    return f"{refused} of {len(counts)} batches were refused"


def fill_tables(guest: Guest) -> str:
    """Extents, granted pages and event channels, to the last."""
    call, made = guest.runtime.hypercalls.call, {"extents": 0, "grants": 0, "ports": 0}
    try:
        while True:
            extent, (descriptor,) = call(m.GnttabAllocate(DOM0, 1, False))
            os.close(descriptor)
            made["extents"] += 1
    except HypercallError as error:
        assert error.errno in (errno.ENOSPC, errno.EMFILE), error
    try:
        while True:
            call(m.GnttabShare(extent, 0, 1))
            made["grants"] += 1
            if made["grants"] >= 2000:  # of 32,768, each as large as the next
                break
    except HypercallError as error:
        assert error.errno == errno.ENOSPC, error
    try:
        while True:
            _, descriptors = call(m.EvtchnAllocUnbound(DOMID_SELF, DOM0))
            for descriptor in descriptors:
                os.close(descriptor)
            made["ports"] += 1
    except HypercallError as error:
        assert error.errno in (errno.ENOSPC, errno.EMFILE), error
    return f"has {made}"


def map_partly(guest: Guest) -> str:
    """XSA-361, XSA-365: batches of which the first page may be mapped and a later one not."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    refused = 0
    for count in (2, 3, 64, 8192):
        for writable in (True, False):
            try:
                guest.runtime.hypercalls.call(m.GnttabMap(owner, ref, count, writable))
            except HypercallError as error:
                assert error.errno in (errno.EINVAL, errno.EACCES, errno.ENOENT), error
                refused += 1
    return f"{refused} of 8 batches were refused"


def die_mapping(guest: Guest, dies: str) -> str:
    """XSA-371: map a page many times over and never give one back; die of it, or (the control) live on."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    for _ in range(20):
        guest.runtime.hypercalls.call(m.GnttabMap(owner, ref, 1, True))
        guest.runtime._upcalls.read_all()
    if int(dies):
        os._exit(1)
    return "has it mapped 20 times"


def die_owning(guest: Guest) -> None:
    """Grant a page, take the file from under whoever has mapped it, and die."""
    peer = DomId(int(told(guest, "peer")))
    extent, (descriptor,) = guest.runtime.hypercalls.call(m.GnttabAllocate(peer, 1, False))
    page = Extent.map(descriptor, 1, writable=True)
    page.view[:8] = b"original"
    ref = guest.runtime.hypercalls.call(m.GnttabShare(extent, 0, 1))
    guest.runtime.store.write("data/ref", str(ref))
    told(guest, "go")
    for size in (0, 1 << 20):
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
    os._exit(1)


def fill_maptrack(guest: Guest, most: str) -> str:
    """The same page, mapped as often as can be."""
    owner, ref = DomId(int(told(guest, "owner"))), GrantRef(int(told(guest, "ref")))
    mapped = 0
    try:
        while mapped < int(most):
            guest.runtime.hypercalls.call(m.GnttabMap(owner, ref, 1, True))
            guest.runtime._upcalls.read_all()
            mapped += 1
    except HypercallError as error:
        assert error.errno == errno.ENOSPC, error
    return f"mapped it {mapped} times"


def lose_leader(guest: Guest) -> None:
    """End the thread that the process is known by, while another goes on writing to a granted page."""
    mapped = _map_granted(guest)
    guest.runtime.store.write("data/mapped", "1")
    told(guest, "go")
    threading.Thread(target=_write_without_end, args=(mapped.view,)).start()
    LIBC.syscall(EXIT_THREAD, 0, 0, 0, 0, 0, 0)


def _write_without_end(view: memoryview) -> None:
    number = 0
    while True:
        number += 1
        view[0:8] = b"%08d" % (number % 10**8)
