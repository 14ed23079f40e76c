"""Peers without defences, each a process of its own: what becomes of one that is attacked as the broker is.

`run` starts one and says how it ended; `python -m` this module is one. None of them is a part of hvd: they are the
controls of attacks on checks that hvd has no switch for.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import zmq

from hvd.toolstack.attacks import naive_tables
from hvd.transport.errors import HvdError

DEADLINE_S = 60.0
FEW_DESCRIPTORS, HOLDS_S = 64, 30.0
BUFFER = 4096
BEGUN = "begun"
"""What each says first: who ends without has met nothing yet."""


class NeverBegan(HvdError):
    """A peer ended before it was one."""


def run(peer: str, *arguments: object) -> tuple[bool, str]:
    """Whether it came to harm, and how; NeverBegan where it ended for another reason than what it was sent."""
    command = [sys.executable, "-P", "-m", __name__, peer]
    done = subprocess.run(
        command, input=json.dumps(arguments), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    last = (done.stderr.strip().splitlines() or [""])[-1] or f"status {done.returncode}"
    begun, _, told = done.stdout.partition("\n")
    if begun != BEGUN:
        raise NeverBegan(f"the peer {peer} ended before it began: {last}")
    if done.returncode:
        return True, f"it died: {last}"
    harmed, what = json.loads(told)
    return bool(harmed), str(what)


def trusts_messages(*untrusted: str) -> tuple[bool, str]:
    """Unpacks, and dispatches on what it finds."""
    for body in untrusted:
        _, _, _, _, number, fields = msgpack.unpackb(bytes.fromhex(body))
        handlers: dict[int, Callable[..., object]] = {0x8009: os.mkdir, 0x8002: os.readlink}
        handlers[number](*fields)
    return False, "it goes on"


def accepts_everybody(connections: int) -> tuple[bool, str]:
    """A bare ZeroMQ socket in a process that has few descriptors."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))
    router = zmq.Context().socket(zmq.ROUTER)
    address = f"hvd-naive-{os.getpid()}"
    router.bind(f"ipc://@{address}")
    alive, _ours = os.pipe()
    if os.fork() == 0:
        os.dup2(alive, 3)
        os.closerange(4, FEW_DESCRIPTORS)
        kept = [socket.socket(socket.AF_UNIX) for _ in range(FEW_DESCRIPTORS - 8)]
        for connection in kept:
            connection.connect(f"\0{address}")
        select.select([3], [], [], HOLDS_S)  # hold them as long as their acceptor lives
        os._exit(0)
    os.wait()
    return False, f"it has accepted {connections} and goes on"


def keeps_descriptors(count: int) -> tuple[bool, str]:
    """Receives messages and forgets that descriptors come with them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = _descriptors()
    forged = array.array("i", [1] * 16)
    for _ in range(count):
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, forged)])
        theirs.recvmsg(16, 4096)
    gained = _descriptors() - before
    return gained > 0, f"it has {gained} descriptors more"


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def closes_nothing(count: int) -> tuple[bool, str]:
    """Forks with files open, which are the child's as well."""
    kept = [tempfile.TemporaryFile() for _ in range(count)]  # noqa: SIM115 - they stay open
    if os.fork() == 0:
        os._exit(all(os.fstat(file.fileno()) for file in kept))
    inherited = bool(os.waitstatus_to_exitcode(os.wait()[1]))
    return inherited, f"it has {count} files of its parent's"


def queues_without_end(count: int) -> tuple[bool, str]:
    """Keeps what its peer does not take."""
    ours, _theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    waiting: list[bytes] = []
    for number in range(count):
        try:
            ours.send(b"event %d" % number)
        except BlockingIOError:
            waiting.append(b"event %d" % number)
    return len(waiting) > 1024, f"{len(waiting):,} messages wait"


def keeps_replies(count: int) -> tuple[bool, str]:
    """Answers whoever asks, and keeps what he does not read."""
    context, address = zmq.Context(), f"ipc://@hvd-naive-{os.getpid()}"
    server, deaf = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    server.linger = deaf.linger = server.sndhwm = 0
    deaf.rcvhwm = 1
    server.bind(address)
    deaf.connect(address)
    deaf.send(b"a request")
    asking, before = server.recv_multipart()[0], _resident()
    for _ in range(count):
        server.send_multipart([asking, b"x" * 120_000])
    grown = (_resident() - before) // 1024
    context.destroy(0)
    return grown > 4096, f"it has {grown:,} KiB more"


def keeps_connections(count: int) -> tuple[bool, str]:
    """Accepts whoever comes, with few descriptors, in a process that does not expect to run out of them."""
    address = f"\0hvd-naive-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(count)
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))
        kept = []
        for _ in range(count):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address)
                kept.append(listening.accept())
    return False, f"it has accepted {len(kept)} and goes on"


def awaits_the_last_part(count: int, peers: int) -> tuple[bool, str]:
    """Has a bound for messages, and for the bytes of each part; so many peers send so many parts each."""
    context, address = zmq.Context(), f"ipc://@hvd-naive-{os.getpid()}"
    server = context.socket(zmq.ROUTER)
    server.linger, server.rcvhwm, server.maxmsgsize = 0, 2, 70_000
    server.bind(address)
    before, part = _resident(), b"x" * 66_000
    for _ in range(peers):
        endless = context.socket(zmq.DEALER)
        endless.linger = endless.sndhwm = 0
        endless.connect(address)
        for _ in range(count):
            endless.send(part, zmq.SNDMORE, copy=False)
        endless.send(b"and the last")
    server.poll(int(DEADLINE_S * 1000))
    grown = (_resident() - before) // 1024
    context.destroy(0)
    return grown > 65_536, f"it has {grown:,} KiB more"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


class _Room(ctypes.Structure):
    """A buffer of the size that a message should have, and what lies behind it."""

    _fields_ = (("buffer", ctypes.c_char * BUFFER), ("neighbour", ctypes.c_char * 8192))


def copies_whatever_comes(size: int) -> tuple[bool, str]:
    """Into a buffer of 4,096 bytes."""
    room = _Room()
    room.neighbour = b"untouched"
    ctypes.memmove(ctypes.addressof(room), b"x" * size, size)
    return room.neighbour != b"untouched", "what lies behind its buffer was overwritten"


def walks_recursively(path: str) -> tuple[bool, str]:
    """As deep as a path is."""

    def make(tree: dict[str, Any], names: list[str]) -> dict[str, Any]:
        return {names[0]: make(tree, names[1:])} if names else tree

    make({}, path.split("/"))
    return False, "it goes on"


def writes_all_it_is_told(path: str, size: int) -> tuple[bool, str]:
    """A log without rotation."""
    with open(path, "ab") as log:
        for _ in range(size // BUFFER):
            log.write(b"x" * BUFFER)
    written = Path(path).stat().st_size
    Path(path).unlink()
    return written >= size // BUFFER * BUFFER, f"its log has {written:,} bytes"


def maps_what_is_not_sealed() -> tuple[bool, str]:
    """Reads a mapped page whose owner has cut the file off behind it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    descriptor = os.memfd_create("page")
    os.ftruncate(descriptor, BUFFER)
    page = mmap.mmap(descriptor, BUFFER)
    os.ftruncate(descriptor, 0)
    return page[0] != 0, "it goes on"


def counts_without_names(maps: int, unmaps: int) -> tuple[bool, str]:
    """Counts its mappings, and takes any unmap for one of them."""
    mapped = [object() for _ in range(maps)]
    count = len(mapped) - unmaps
    return count <= 0 < len(mapped), f"it counts {count} mappings of a page that has {maps}: it would free it"


def reads_every_byte(count: int) -> tuple[bool, str]:
    """One event a byte in a pipe."""
    read, write = os.pipe()
    reader = threading.Thread(target=os.read, args=(read, 1))
    os.set_blocking(write, False)
    written = 0
    for _ in range(count):
        try:
            written += os.write(write, b"!")
        except BlockingIOError:
            break
    reader.start()
    reader.join()
    return written > 1000, f"{written:,} events wait for it"


def lets_go_of_what_is_in_use(times: int) -> tuple[bool, str]:
    """Unmaps a ring when its frontend says that it goes, whoever works on it."""
    for _ in range(times):
        ring = mmap.mmap(-1, BUFFER)
        in_flight = 0  # a request's place in the ring
        ring.close()
        ring[in_flight] = 1
    return False, "it goes on"


def shares_a_description() -> tuple[bool, str]:
    """Writes a pipe, without blocking as it believes, whose other writer has changed the flags and filled it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    theirs = os.dup(write)  # as SCM_RIGHTS hands it on: the same open file description
    try:
        while True:
            os.write(theirs, b"x" * BUFFER)
    except BlockingIOError:
        os.set_blocking(theirs, True)
    writer = threading.Thread(target=os.write, args=(write, b"x"), daemon=True)
    writer.start()
    writer.join(0.5)
    blocked = writer.is_alive()
    os.read(read, 2 * BUFFER)
    return blocked, "it blocks in a write that should not"


def writes_any_sector(request: str, sectors: int) -> tuple[bool, str]:
    """Carries a blkif request out on the first of two images of so many sectors that lie in one file."""
    _, segments, _, _, sector = struct.unpack_from("<BBHxxxxQQ", bytes.fromhex(request))
    with tempfile.TemporaryFile(buffering=0) as disk:
        disk.write(bytes(2 * sectors * 512))
        os.pwrite(disk.fileno(), b"x" * 512 * segments, sector * 512)
        neighbour = os.pread(disk.fileno(), sectors * 512, sectors * 512)
    return b"x" in neighbour, "the image behind its own was written"


def believes_a_key(value: str) -> tuple[bool, str]:
    """A number, as the other end says."""
    return int(value) < 0, "it goes on"


def believes_responses(*ids: int) -> tuple[bool, str]:
    """Looks a response's request up by its id."""
    open_requests = {1: "a read", 2: "a write"}
    for answered in ids:
        open_requests.pop(answered)
    return False, "it goes on"


def maps_what_it_can(granted: int, count: int) -> tuple[bool, str]:
    """Maps a batch page by page, and forgets the first ones when a later one fails."""
    pins = dict.fromkeys(range(granted), 0)
    try:
        for page in range(count):
            pins[page] += 1
    except KeyError:
        return any(pins.values()), f"{sum(pins.values())} pages are mapped by a batch that failed"
    return False, "it goes on"


def takes_entries_without_a_lock(takers: int) -> tuple[bool, str]:
    """A table whose free entry each of several looks up before any of them has taken it."""
    free, taken = list(range(takers)), []
    together = threading.Barrier(takers)

    def take() -> None:
        entry = free[0]
        together.wait()
        taken.append(entry)

    threads = [threading.Thread(target=take) for _ in range(takers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(set(taken)) < takers, f"{takers} mappings are in {len(set(taken))} entry: unmapping one unmaps all"


def notes_before_it_looks(ports: int) -> tuple[bool, str]:
    """Binds a virq, and looks for a port to raise it at."""
    free, bound = list(range(ports)), set()

    def bind(virq: int) -> int:
        if virq in bound:
            raise KeyError(virq)
        bound.add(virq)
        return free.pop()

    bind(0)
    with contextlib.suppress(IndexError):
        bind(1)
    free.append(7)
    try:
        bind(1)
    except KeyError:
        return True, "a virq is bound for ever, and to no port"
    return False, "it goes on"


def forgets_that_it_resumed(queues: int) -> tuple[bool, str]:
    """A frontend that lets go of its queues when it resumes, and stops them when its device is taken away."""
    running = {"eth0": [bytearray(BUFFER) for _ in range(queues)]}
    del running["eth0"]  # until its backend is connected
    for queue in running["eth0"]:
        queue.clear()
    return False, "it goes on"


def is_fed_again(times: int) -> tuple[bool, str]:
    """A server that is started again whenever it died, and given what was not answered."""
    deaths = 0
    while deaths < times:
        if (pid := os.fork()) == 0:
            os.kill(os.getpid(), signal.SIGKILL)  # of the message
        deaths += os.waitpid(pid, 0)[1] != 0
    return deaths == times, f"{deaths} servers died of the same message"


def forgets_its_parents(names: int) -> tuple[bool, str]:
    """A store that looks for a node's parent when it is to be counted off, and not before."""
    nodes = {f"/a/{number}": "/a" for number in range(names)} | {"/a": "/"}
    del nodes["/a"]  # by another transaction
    children = {parent: sum(nodes[node] == parent for node in nodes) for parent in nodes}
    for node in list(nodes):
        children[nodes.pop(node)] -= 1
    return False, "it goes on"


PEERS: dict[str, Callable[..., tuple[bool, str]]] = naive_tables.PEERS | {
    peer.__name__: peer for peer in (
        trusts_messages, accepts_everybody, keeps_descriptors, queues_without_end, copies_whatever_comes,
        walks_recursively, writes_all_it_is_told, counts_without_names, reads_every_byte,
        lets_go_of_what_is_in_use, shares_a_description, writes_any_sector, believes_a_key, believes_responses,
        maps_what_it_can, is_fed_again, forgets_its_parents, keeps_replies, keeps_connections, closes_nothing,
        maps_what_is_not_sealed, awaits_the_last_part, takes_entries_without_a_lock, notes_before_it_looks,
        forgets_that_it_resumed,
    )
}  # fmt: skip


def main() -> None:
    """Be one of them."""
    peer, arguments = PEERS[sys.argv[1]], json.load(sys.stdin)
    print(BEGUN, flush=True)
    sys.stdout.write(json.dumps(peer(*arguments)))


if __name__ == "__main__":
    main()
