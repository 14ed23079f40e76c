"""A driver domain killed again and again under load: how long its guest waits, and whether anything is lost."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise, takewhile
from pathlib import Path

from hvd.toolstack.bench.disks import disk, disk_domain, make_image
from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.faults.checker import Checker, Verdict
from hvd.toolstack.faults.killer import Killer
from hvd.transport.errors import HvdError
from hvd.transport.messages import DomainConfig

DISK, WRITER = "bench-disk", "bench-writer"
DEADLINE_S = 60.0


def measure_recovery(
    cluster: Cluster, directory: Path, kills: int, tell: Callable[[str], None], seed: int = 1
) -> tuple[list[Figure], Verdict]:
    """A guest keeps eight operations of up to 256 KiB in flight on a disk whose driver domain is killed."""
    image, acks = make_image(directory / "recovery.img"), directory / "acks"
    driver = cluster.create(disk_domain(DISK))
    arguments = [f"acks={acks}", f"seed={seed}"]
    devices, paths = [disk(image, DISK)], [f"{acks}:w"]
    writer = cluster.create(
        DomainConfig(
            WRITER, "hvd:disk_exerciser", args=arguments, on_crash="preserve", devices=devices, paths=paths
        )
    )
    writer.wait_ready(DEADLINE_S)
    checker = Checker(str(image), str(acks), seed)
    killed_ns = []
    killer = Killer(cluster, [driver], seed=seed, interval_s=0.05, deadline_s=DEADLINE_S)
    for recovery in killer.run(kills, tell):
        if not recovery.recovered:
            raise HvdError(f"{DISK} did not come back from kill {recovery.number}: {recovery.outcome}")
        killed_ns.append(recovery.killed_ns)
        _wait_for_progress(checker, recovery.killed_ns, writer)
        if recovery.number % 10 == 0:
            checker.check()
    verdict = checker.check()
    writer.destroy()
    driver.destroy()
    ends = [*killed_ns[1:], time.monotonic_ns()]
    samples = [first_completion_ms(checker.times_ns, at, until) for at, until in zip(killed_ns, ends, strict=True)]
    goals = (Goal("p50", 10.0), Goal("p99", 50.0))
    return [Figure("driver domain SIGKILL to the guest's next completed request", "ms", samples, goals)], verdict


def first_completion_ms(times_ns: list[int], killed_ns: int, until_ns: int) -> float:
    """From a kill to the end of the longest silence before the next one.

    What the dead backend had answered already may still be taken from the ring after its death: that ends no wait.
    """
    start = bisect_right(times_ns, killed_ns)
    after = [killed_ns, *takewhile(lambda at: at < until_ns, times_ns[start:])]
    gaps = [(later - earlier, later) for earlier, later in pairwise(after)]
    return (max(gaps)[1] - killed_ns) / 1e6 if gaps else float("inf")


def _wait_for_progress(checker: Checker, killed_ns: int, writer: Domain) -> None:
    """Until the writer has been given a hundred answers since the kill: its disk works again."""
    until = time.monotonic() + DEADLINE_S
    while len(checker.times_ns) - bisect_right(checker.times_ns, killed_ns) < 100:
        if time.monotonic() > until:
            raise HvdError(
                f"the writer has completed nothing for {DEADLINE_S:g} s (it is {writer.state}: {writer.last_death})"
            )
        time.sleep(0.002)
        checker.follow()
