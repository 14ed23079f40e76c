"""A 4 KiB request on a guest's disk, there and back, beside the same system call on the same file in one process."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

from hvd.toolstack.bench.disks import IMAGE_BYTES, disk, disk_domain, make_image
from hvd.toolstack.bench.figures import Figure
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DomainConfig

DISK, READER = "bench-block-disk", "bench-reader"
BLOCK = 4096
DEADLINE_S = 120.0


def measure_block(cluster: Cluster, directory: Path, requests: int) -> list[Figure]:
    """One request in flight at a time."""
    image, out = make_image(directory / "block.img"), directory / "block.json"
    driver = cluster.create(disk_domain(DISK))
    driver.wait_ready(DEADLINE_S)
    reader = DomainConfig(
        READER,
        "hvd:disk_caller",
        args=[f"out={out}", f"requests={requests}"],
        on_crash="destroy",
        devices=[disk(image, DISK)],
    )
    cluster.create(reader).wait_gone(DEADLINE_S)
    figures = json.loads(out.read_text())
    driver.destroy()
    return [
        Figure("disk write, 4 KiB, one at a time", "µs", [ns / 1000 for ns in figures["write_ns"]]),
        Figure("disk read, 4 KiB, one at a time", "µs", [ns / 1000 for ns in figures["read_ns"]]),
        Figure(
            "os.preadv of the same file, same process",
            "µs",
            _preadv_us(image, requests),
            note="what there is to add to",
        ),
    ]


def _preadv_us(image: Path, requests: int) -> list[float]:
    chosen, buffer = random.Random(1), bytearray(BLOCK)
    descriptor = os.open(image, os.O_RDONLY)
    times = []
    for _ in range(requests):
        place = chosen.randrange(IMAGE_BYTES // BLOCK) * BLOCK
        start = time.perf_counter_ns()
        os.preadv(descriptor, [buffer], place)
        times.append((time.perf_counter_ns() - start) / 1000)
    os.close(descriptor)
    return times
