"""In-vehicle infotainment: plays music from its disk, installed there at the first boot, and resumes after any death.

Block 0 of the disk holds the library's table of contents, block 1 where playing stopped, both as JSON; then the music.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from typing import Any

from hvd.domains.block.frontend import BlockFrontend
from hvd.domains.guest import Guest

AUTO_READY = False
SECTOR = 512
BLOCK_SECTORS = 8
CHUNK_SECTORS = 128
CHUNKS_PER_TRACK = 16
MUSIC_AT = 2 * BLOCK_SECTORS
PERIOD_S = 0.25
CHUNKS_PER_LINE = 4
TITLES = ("Autobahn at Dawn", "Ring Road", "Doorbell Waltz", "Granted Pages", "Night Shift", "Homeward")


class Library:
    """Tracks on a disk, each chunk with the checksum that the table of contents has for it."""

    def __init__(self, disk: BlockFrontend) -> None:
        self._disk = disk
        self._tracks: list[dict[str, Any]] = []

    def open(self) -> str:
        """Install what is not there yet; returns what was done."""
        found = self._read_json(0)
        if found is not None:
            self._tracks = found["tracks"]
            return f"{len(self._tracks)} tracks found on disk {self._disk.name}"
        self._tracks = [self._install(number, title) for number, title in enumerate(TITLES)]
        self._disk.flush()  # first the music, then the table that says it is there
        self._write_json(0, {"tracks": self._tracks})
        return f"{len(self._tracks)} tracks installed on disk {self._disk.name}"

    def chunk(self, track: int, chunk: int) -> bytes:
        """One chunk of music as it was installed; ValueError when the disk has brought something else."""
        data = self._disk.read(self._sector(track, chunk), CHUNK_SECTORS)
        if zlib.crc32(data) != self._tracks[track]["crc32"][chunk]:
            raise ValueError(f"chunk {chunk} of track {track} is damaged")
        return data

    def title(self, track: int) -> str:
        return str(self._tracks[track]["title"])

    def position(self) -> tuple[int, int]:
        """(track, chunk) to go on with."""
        found = self._read_json(BLOCK_SECTORS) or {"track": 0, "chunk": 0}
        return found["track"], found["chunk"]

    def remember(self, track: int, chunk: int) -> None:
        """Survives this domain, its driver domain and the hypervisor."""
        self._write_json(BLOCK_SECTORS, {"track": track, "chunk": chunk})

    def _install(self, number: int, title: str) -> dict[str, Any]:
        recording = random.Random(title)
        checksums = []
        for chunk in range(CHUNKS_PER_TRACK):
            data = recording.randbytes(CHUNK_SECTORS * SECTOR)
            self._disk.write(self._sector(number, chunk), data)
            checksums.append(zlib.crc32(data))
        return {"title": title, "crc32": checksums}

    def _sector(self, track: int, chunk: int) -> int:
        return MUSIC_AT + (track * CHUNKS_PER_TRACK + chunk) * CHUNK_SECTORS

    def _read_json(self, sector: int) -> Any:
        text = self._disk.read(sector, BLOCK_SECTORS).rstrip(b"\0")
        return json.loads(text) if text else None

    def _write_json(self, sector: int, value: object) -> None:
        self._disk.write(sector, json.dumps(value).encode().ljust(BLOCK_SECTORS * SECTOR, b"\0"))
        self._disk.flush()


def main(guest: Guest) -> None:
    """Play until shut down."""
    library = Library(guest.disk())
    print(f"ivi: incarnation {guest.incarnation}, {library.open()}")
    track, chunk = library.position()
    guest.ready()
    due = time.monotonic()
    slowest_ms = 0.0
    while True:
        begin = time.monotonic()
        library.chunk(track, chunk)
        slowest_ms = max(slowest_ms, (time.monotonic() - begin) * 1000)
        if chunk % CHUNKS_PER_LINE == 0:
            library.remember(track, chunk)
            seconds = int(chunk * PERIOD_S)
            print(f"ivi: playing {library.title(track)!r} at 0:{seconds:02d}, intact; slowest read {slowest_ms:.1f} ms")
            slowest_ms = 0.0
        chunk += 1
        if chunk == CHUNKS_PER_TRACK:
            track, chunk = (track + 1) % len(TITLES), 0
        due = max(due + PERIOD_S, time.monotonic())
        while (left := due - time.monotonic()) > 0:
            guest.wait(left)
