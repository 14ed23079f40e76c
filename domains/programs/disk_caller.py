"""A guest that times its disk: one 4 KiB request after the other through frontend, ring, backend and image.

Arguments `out=FILE` (a JSON object is written there at the end) and `requests=N` of each kind. Each figure is a list of
nanoseconds.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from hvd.domains.block.frontend import BlockFrontend
from hvd.domains.guest import Guest

SECTORS = 8
WARM_UP = 200


def timed(requests: int, sectors: int, request: Callable[[int], object]) -> list[int]:
    """Random places, aligned to 4 KiB; how long each request took."""
    chosen = random.Random(1)
    places = [chosen.randrange(sectors // SECTORS) * SECTORS for _ in range(requests + WARM_UP)]
    times = []
    for place in places:
        start = time.perf_counter_ns()
        request(place)
        times.append(time.perf_counter_ns() - start)
    return times[WARM_UP:]


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    disk: BlockFrontend = guest.disk()
    requests, data = int(options.get("requests", "5000")), os.urandom(SECTORS * 512)
    figures = {
        "write_ns": timed(requests, disk.sectors, lambda place: disk.write(place, data)),
        "read_ns": timed(requests, disk.sectors, lambda place: disk.read(place, SECTORS)),
    }
    disk.flush()
    out = Path(options["out"])
    out.with_suffix(".tmp").write_text(json.dumps(figures))
    out.with_suffix(".tmp").rename(out)
