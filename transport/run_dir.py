"""A cluster's directory as machine and toolstack both know it: its names, whose machine runs there, its order."""

from __future__ import annotations

import fcntl
import os
import struct

import msgpack

from hvd.transport.records import dataclass

CONTROL = "control"
"""The toolstack's hypercall endpoint."""
EVENTS = "events"
"""Where lifecycle events are published."""
HELLO = "hello"
"""What a new subscriber is greeted with there: which boot this is, and the number of the last event before."""
DOMAINS = "domains"
"""The domains' endpoints, each in a directory of its own."""
ENDPOINT = "hypercall"
"""The socket in a domain's directory."""
XENSTORED = "xenstored"
"""A directory as XENSTORED_RUNDIR names one: in it is dom0's XenStore socket."""
STORE_SOCKET = "socket"
"""XenStore's socket there, and in a domain's directory; what Xen's libraries call it."""
LOG = "log"
AUDIT_LOG = "log/_avc.log"
"""What the security policy denied. No domain's log is called so: their names begin with a letter or digit."""
CORES = "cores"
"""Cores of domains, NAME.INCARNATION.core; they live as long as the logs."""
PART = ".part"
"""Ends the name of a core that is being written."""
EXTENT_LABEL = "hvd-extent-"
"""Begins the name of a memfd of granted pages; behind it stands its owner's domid, for /proc/PID/maps."""
LOCK = "machine.lock"
"""Locked by the machine for as long as it lives; its text is `PID START_TIME`, for those who come after a power cut."""
NAMES = (CONTROL, EVENTS, DOMAINS, XENSTORED, LOG, CORES, LOCK)
"""Everything a machine makes in its directory."""
UNUSABLE = "unusable: "
"""Begins the machine's last words when there can be no such directory: whoever named it has to name another."""
NO_UPLINK = "no uplink: "
"""Begins them when a TAP device that it was to open cannot be had."""
LET_GO = b"\n"
"""Behind the order, once: the machine goes on without whoever gave it. Else it powers off when his end closes."""

_FLOCK = "hhqqi"
_ORDER_BYTES_MAX = 1 << 26


@dataclass(frozen=True, slots=True)
class Order:
    """What a machine is told before it starts: it comes on descriptor 0; news of the start go back on descriptor 3."""

    run_dir: str
    configuration: bytes
    """A BootConfig, encoded, as msgpack."""
    temporary: bool
    """Remove the whole directory at the end, logs too."""
    uplinks: list[tuple[str, int]]
    """TAP devices of the host that it is to hold, with the MTU of one that it makes."""
    cpus: list[int]
    """Where it is to run, and broker and zygote; none: where it is started."""

    def packed(self) -> bytes:
        """The bytes on the pipe: a length and the fields."""
        fields = [self.run_dir, self.configuration, self.temporary, self.uplinks, self.cpus]
        body: bytes = msgpack.packb(fields)
        return len(body).to_bytes(4, "little") + body

    @classmethod
    def read(cls, descriptor: int) -> Order | None:
        """Wait for an order; None when the other end was closed without giving one."""
        length = _read_exactly(descriptor, 4)
        if length is None or (size := int.from_bytes(length, "little")) > _ORDER_BYTES_MAX:
            return None
        body = _read_exactly(descriptor, size)
        return None if body is None else cls(*msgpack.unpackb(body))


def _read_exactly(descriptor: int, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = os.read(descriptor, count - len(data))
        if not part:
            return None
        data += part
    return data


def machine_pid(directory: int) -> int | None:
    """The pid of the machine that runs in this open directory; None when none does. The kernel says it, no file."""
    try:
        descriptor = os.open(LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot; with its pid that names one process. None if there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def lives(pid: int, born: int) -> bool:
    """Whether this process still runs; one that nobody has reaped does not."""
    fields = _stat(pid)
    return bool(fields) and int(fields[19]) == born and fields[0] not in (b"Z", b"X")


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the name; none if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()
    except OSError:
        return []


def part_of(path: str, domid: int, incarnation: int) -> str:
    """Where a live domain's core is written before it is whole: beside its place, a name of its own."""
    return f"{path}.{domid}.{incarnation}{PART}"
