"""A guest that times its disk, in turns with os.preadv and os.pwritev on the disk's own image.

Arguments `out=FILE` (a JSON object is written there at the end), `image=FILE` that the disk is served from,
`requests=N` one at a time of each kind, `seed=N`. In each round every workload has its turn, in an order drawn anew.
Figures are lists of nanoseconds: of each request where there is one at a time, else the average of a round's.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hvd.domains.block.frontend import BlockFrontend
from hvd.domains.guest import Guest

BLOCK = 4096
SECTORS = BLOCK // 512
DEPTH = 32
LONG = 1 << 20
LONG_SECTORS = LONG // 512
LONG_DEPTH = 2
SINGLES, DEEP, LONGS = 200, 1600, 48
"""Requests of one round."""
WARM_UP = 20
"""Requests of each turn before its clock runs: whoever slept is awake then."""


class Workloads:
    """Each method is one turn; it returns what it adds to the figure of its name."""

    def __init__(self, disk: BlockFrontend, image: str, source: random.Random) -> None:
        self._disk = disk
        self._image = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self._random = source
        self._data = source.randbytes(BLOCK)
        self._block = bytearray(BLOCK)
        self._long = [disk.buffer(LONG_SECTORS) for _ in range(LONG_DEPTH)]
        """As a guest's pages are: what the disk reads into them is not copied again."""
        self._own_long = bytearray(LONG)

    def write(self) -> list[int]:
        return self._one_at_a_time(lambda place: self._disk.write(place * SECTORS, self._data))

    def pwritev(self) -> list[int]:
        return self._one_at_a_time(lambda place: os.pwritev(self._image, [self._data], place * BLOCK))

    def read(self) -> list[int]:
        return self._one_at_a_time(lambda place: self._disk.read(place * SECTORS, SECTORS))

    def preadv(self) -> list[int]:
        return self._one_at_a_time(lambda place: os.preadv(self._image, [self._block], place * BLOCK))

    def read_deep(self) -> list[int]:
        sectors = [place * SECTORS for place in self._places(DEEP)]
        self._warm_up()
        return [self._averaged(DEEP, lambda: self._keep_in_flight(sectors))]

    def preadv_deep(self) -> list[int]:
        offsets = [place * BLOCK for place in self._places(DEEP)]

        def all_of_them() -> None:
            for offset in offsets:
                os.preadv(self._image, [self._block], offset)

        return [self._averaged(DEEP, all_of_them)]

    def read_long(self) -> list[int]:
        """Sequential, two in flight: while one is taken, the backend has the next."""
        disk, long, first = self._disk, self._long, self._long_place()

        def all_of_them() -> None:
            flying: deque[int] = deque()
            for number in range(LONGS):
                if len(flying) == LONG_DEPTH:
                    disk.finish(flying.popleft())
                place = first + number * LONG_SECTORS
                flying.append(disk.submit_read(place, LONG_SECTORS, long[number % LONG_DEPTH]))
            while flying:
                disk.finish(flying.popleft())

        self._warm_up()
        return [self._averaged(LONGS, all_of_them)]

    def read_long_alone(self) -> list[int]:
        """Sequential, one at a time."""
        first = self._long_place()

        def all_of_them() -> None:
            for number in range(LONGS):
                self._disk.read_into(first + number * LONG_SECTORS, self._long[0])

        self._warm_up()
        return [self._averaged(LONGS, all_of_them)]

    def preadv_long(self) -> list[int]:
        first = self._long_place()

        def all_of_them() -> None:
            for number in range(LONGS):
                os.preadv(self._image, [self._own_long], (first + number * LONG_SECTORS) * 512)

        return [self._averaged(LONGS, all_of_them)]

    def check(self) -> None:
        """What the disk brings is what the image has: by each way of reading, at places of this round's own."""
        places = self._places(DEPTH)
        expected = [os.pread(self._image, BLOCK, place * BLOCK) for place in places]
        memory = bytearray(DEPTH * BLOCK)
        ids = self._disk.submit_reads([place * SECTORS for place in places], SECTORS, memory)
        for request_id in ids:
            self._disk.finish(request_id)
        if memory != b"".join(expected) or self._disk.read(places[0] * SECTORS, SECTORS) != expected[0]:
            raise AssertionError(f"blocks {places} are not what the image has")
        first = self._long_place()
        self._disk.read_into(first, self._long[0])
        if self._long[0] != os.pread(self._image, LONG, first * 512):
            raise AssertionError(f"1 MiB from sector {first} on is not what the image has")

    def _keep_in_flight(self, sectors: list[int]) -> None:
        disk, submitted, done = self._disk, DEPTH, 0
        disk.submit_reads(sectors[:DEPTH], SECTORS)
        while done < len(sectors):
            came = len(disk.completions(1.0))
            done += came
            if came and submitted < len(sectors):
                submitted += len(disk.submit_reads(sectors[submitted : submitted + came], SECTORS))

    def _one_at_a_time(self, request: Callable[[int], object]) -> list[int]:
        times = []
        for place in self._places(WARM_UP + SINGLES):
            start = time.perf_counter_ns()
            request(place)
            times.append(time.perf_counter_ns() - start)
        return times[WARM_UP:]

    def _averaged(self, requests: int, run: Callable[[], None]) -> int:
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) // requests

    def _warm_up(self) -> None:
        for place in self._places(WARM_UP):
            self._disk.read(place * SECTORS, SECTORS)

    def _places(self, count: int) -> list[int]:
        blocks = self._disk.sectors // SECTORS
        return [self._random.randrange(blocks) for _ in range(count)]

    def _long_place(self) -> int:
        return self._random.randrange(self._disk.sectors // LONG_SECTORS - LONGS + 1) * LONG_SECTORS


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    source = random.Random(int(options.get("seed", "1")))
    workloads = Workloads(guest.disk(), options["image"], source)
    turns: dict[str, Callable[[], list[int]]] = {
        "write_ns": workloads.write,
        "pwritev_ns": workloads.pwritev,
        "read_ns": workloads.read,
        "preadv_ns": workloads.preadv,
        "read_deep_ns": workloads.read_deep,
        "preadv_deep_ns": workloads.preadv_deep,
        "read_long_ns": workloads.read_long,
        "read_long_alone_ns": workloads.read_long_alone,
        "preadv_long_ns": workloads.preadv_long,
    }
    figures: dict[str, list[int]] = {name: [] for name in turns}
    for _ in range(-(-int(options.get("requests", "5000")) // SINGLES)):
        workloads.check()
        for name in source.sample(list(turns), len(turns)):
            figures[name] += turns[name]()
    Path(options["out"]).write_text(json.dumps(figures))
