"""Telematics: takes a frame ten times a second and keeps it on its disk, a ring of sectors that outlives whoever dies.

Frame n lies in sector (n - 1) mod the disk's size: magic, n, wall clock, distance, CRC-32 of what stands before it.
"""

from __future__ import annotations

import struct
import time
import zlib

from hvd.domains.block.frontend import BlockFrontend
from hvd.domains.guest import Guest, GuestShutdown

SECTOR = 512
FRAME = struct.Struct("<8sQQd")
CHECKSUM = struct.Struct("<I")
MAGIC = b"hvd-tele"
PERIOD_S = 0.1
FRAMES_PER_FLUSH = 10
METRES_PER_FRAME = 2.5


class FrameLog:
    """Frames on a disk, numbered without a gap."""

    def __init__(self, disk: BlockFrontend) -> None:
        self._disk = disk
        self.last = max((number for number in map(frame_number, self._sectors()) if number), default=0)

    def append(self, distance_m: float) -> None:
        """Write the next frame; it is safe after `flush`."""
        number = self.last + 1
        frame = FRAME.pack(MAGIC, number, time.time_ns(), distance_m)
        frame += CHECKSUM.pack(zlib.crc32(frame))
        self._disk.write((number - 1) % self._disk.sectors, frame.ljust(SECTOR, b"\0"))
        self.last = number

    def flush(self) -> None:
        self._disk.flush()

    def _sectors(self) -> list[bytes]:
        step = self._disk.request_sectors_max
        found = []
        for start in range(0, self._disk.sectors, step):
            data = self._disk.read(start, min(step, self._disk.sectors - start))
            found += [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]
        return found


def frame_number(sector: bytes) -> int:
    """The number of a whole frame; 0 for anything else."""
    magic, number, _, _ = FRAME.unpack_from(sector)
    checksum = CHECKSUM.unpack_from(sector, FRAME.size)[0]
    return int(number) if magic == MAGIC and checksum == zlib.crc32(sector[: FRAME.size]) else 0


def main(guest: Guest) -> None:
    """Report until shut down; the frames since the last flush are made safe before the end."""
    frames = FrameLog(guest.disk())
    print(f"telematics: incarnation {guest.incarnation}, {frames.last} frames found on disk {guest.disk().name}")
    try:
        report(guest, frames)
    except GuestShutdown:
        frames.flush()
        print(f"telematics: told to stop, {frames.last} frames are safe")
        raise


def report(guest: Guest, frames: FrameLog) -> None:
    """A frame, and now and then a flush, for ever."""
    due = time.monotonic()
    slowest_ms = 0.0
    while True:
        begin = time.monotonic()
        frames.append(frames.last * METRES_PER_FRAME)
        if frames.last % FRAMES_PER_FLUSH == 0:
            frames.flush()
        slowest_ms = max(slowest_ms, (time.monotonic() - begin) * 1000)
        if frames.last % FRAMES_PER_FLUSH == 0:
            print(f"telematics: frame {frames.last} is safe; slowest of {FRAMES_PER_FLUSH} took {slowest_ms:.1f} ms")
            slowest_ms = 0.0
        due = max(due + PERIOD_S, time.monotonic())
        while (left := due - time.monotonic()) > 0:
            guest.wait(left)
