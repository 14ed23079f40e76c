"""A guest's disk, there and back, in turns with os.preadv on the disk's own image by one thread of the same process."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

from hvd.toolstack.bench.disks import IMAGE_BYTES, disk, disk_domain, make_image
from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.faults.killer import percentiles
from hvd.transport.messages import DomainConfig

DISK, READER = "bench-block-disk", "bench-reader"
DEADLINE_S = 120.0
ADDED_US = 4.0
DEEP_IOPS, LONG_BANDWIDTH = 0.70, 0.95
"""Shares of what os.preadv reaches."""


def measure_block(cluster: Cluster, directory: Path, requests: int, seed: int = 1) -> list[Figure]:
    """So many requests one at a time of each kind, and in as many rounds those with more in flight.

    The two domains are on different CPUs where there are two. The image is in the page cache, all of it written.
    """
    image, out = make_image(directory / "block.img"), directory / "block.json"
    _write_all(image, random.Random(seed))
    cpus = sorted(os.sched_getaffinity(0))
    driver = cluster.create(disk_domain(DISK, cpus=cpus[:1]))
    driver.wait_ready(DEADLINE_S)
    reader = DomainConfig(
        READER,
        "hvd:disk_caller",
        args=[f"out={out}", f"image={image}", f"requests={requests}", f"seed={seed}"],
        cpus=cpus[-1:],
        on_crash="destroy",
        paths=[f"{out}:w", f"{image}:w"],
        devices=[disk(image, DISK)],
    )
    cluster.create(reader).wait_gone(DEADLINE_S)
    figures = json.loads(out.read_text())
    driver.destroy()
    return _shown({name: [ns / 1000 for ns in samples] for name, samples in figures.items()})


def _shown(us: dict[str, list[float]]) -> list[Figure]:
    added = percentiles(us["read_ns"]).get("p50", 0.0) - percentiles(us["preadv_ns"]).get("p50", 0.0)
    return [
        Figure("disk write, 4 KiB, one at a time", "µs", us["write_ns"]),
        Figure("os.pwritev, 4 KiB, same image", "µs", us["pwritev_ns"]),
        Figure("disk read, 4 KiB, one at a time", "µs", us["read_ns"]),
        Figure("os.preadv, 4 KiB, same image", "µs", us["preadv_ns"], note="in turns with the lines around it"),
        Figure("disk read - os.preadv, 4 KiB, one at a time", "µs", [added], (Goal("p50", ADDED_US),)),
        Figure("disk read, 4 KiB, 32 in flight, each", "µs", us["read_deep_ns"]),
        _share(
            "disk read / os.preadv, 4 KiB, 32 in flight, time",
            us["read_deep_ns"], us["preadv_deep_ns"], DEEP_IOPS, "IOPS",
        ),
        Figure("disk read, 1 MiB in sequence, 2 in flight, each", "µs", us["read_long_ns"]),
        Figure("os.preadv, 1 MiB in sequence", "µs", us["preadv_long_ns"]),
        _share(
            "disk read / os.preadv, 1 MiB in sequence, 2 in flight, time",
            us["read_long_ns"], us["preadv_long_ns"], LONG_BANDWIDTH, "bandwidth",
        ),
        _share(
            "disk read / os.preadv, 1 MiB in sequence, one at a time, time",
            us["read_long_alone_ns"], us["preadv_long_ns"],
        ),
    ]  # fmt: skip


def _share(name: str, ours: list[float], peers: list[float], least: float | None = None, of: str = "") -> Figure:
    """Time as a multiple of the peer's, each round against the peer's turn in the same round."""
    goals = () if least is None else (Goal("p50", round(1 / least, 3)),)
    note = "" if least is None else f"at least {least:.0%} of its {of}"
    return Figure(name, "×", [our / peer for our, peer in zip(ours, peers, strict=True)], goals, note)


def _write_all(image: Path, source: random.Random) -> None:
    """What was only allocated is read as zeros, and lies in the page cache otherwise than data does."""
    with image.open("r+b") as file:
        for _ in range(IMAGE_BYTES >> 20):
            file.write(source.randbytes(1 << 20))
