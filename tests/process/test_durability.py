"""What a FLUSH was answered for survives a power cut at any moment, whatever of the rest does."""

from __future__ import annotations

import os
from pathlib import Path

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.toolstack.faults.durability import Cuts, Durability, judge
from hvd.transport.history import unpack_all
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from hvd.transport.write_log import LogKind, LogRecord, records

KERNELS = Path(__file__).with_name("kernels")
BLOCKS, SEED = 48, 11
IMAGE_BYTES = BLOCKS * 4096
DEADLINE_S = 60.0


class Exercised:
    """A guest that exercises a small disk to its end, whose backend logs."""

    def __init__(self, directory: Path, driver: str, *options: str) -> None:
        self.image, self.log, self.acks = (directory / name for name in ("disk.img", "disk.log", "acks"))
        for file in (self.image, self.log, self.acks):
            file.touch()
        os.truncate(self.image, IMAGE_BYTES)
        keys = {"params": str(self.image), "mode": "w", "dev": "xvda", "hvd-write-log": str(self.log)}
        restart = RestartPolicy(limit=0)
        self.cluster = Cluster.build([
            DomainConfig("driver", driver, driver_domain=True, restart=restart, paths=[f"{self.log}:w"]),
            DomainConfig("guest", "hvd:disk_exerciser", args=[f"acks={self.acks}", f"seed={SEED}", *options],
                         devices=[DeviceConfig("vbd", 51712, "driver", keys)], on_poweroff="preserve",
                         paths=[f"{self.acks}:w"]),
        ])  # fmt: skip

    def run(self, kills: int = 0) -> None:
        with self.cluster:
            driver, guest = self.cluster.domain("driver"), self.cluster.domain("guest")
            for _ in range(kills):
                if guest.state is not DomainState.RUNNING:
                    break
                driver.kill()
                driver.wait_ready()
            guest.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
            assert guest.last_death == "poweroff"

    def records(self) -> list[LogRecord]:
        return list(records(self.log.read_bytes()))

    def judged(self, cuts: Cuts) -> Durability:
        history = list(unpack_all(self.acks.read_bytes()))
        return judge(bytes(IMAGE_BYTES), self.records(), history, SEED, cuts)


def test_at_every_prefix_any_subset_of_unflushed_writes_may_be_dropped_and_no_flushed_one_is_missing(tmp_path):
    disk = Exercised(tmp_path, "hvd:driver_domain", f"blocks={BLOCKS}", "largest=2", "flush_every=7", "operations=400")
    disk.run()
    found = disk.judged(Cuts(exhaustive_max=7, samples=4))
    assert not found.lost, found
    assert found.prefixes == found.records + 1 > 300
    assert found.flushes > 50
    assert found.images > 10 * found.prefixes


def test_the_log_goes_on_over_deaths_of_the_backend_and_holds_all_that_is_on_the_image(tmp_path):
    options = (f"blocks={BLOCKS}", "largest=8", "flush_every=40", "operations=6000")
    disk = Exercised(tmp_path, "hvd:driver_domain", *options)
    disk.run(kills=8)
    rebuilt = bytearray(IMAGE_BYTES)
    for record in disk.records():
        if record.kind is LogKind.WRITE:
            rebuilt[record.offset : record.offset + record.length] = record.content
    assert rebuilt == disk.image.read_bytes()
    found = disk.judged(Cuts(exhaustive_max=3, samples=3, prefixes_max=300))
    assert not found.lost, found
    assert found.flushes > 100


def test_a_backend_that_answers_before_it_has_flushed_is_found_out(tmp_path):
    kernel = str(KERNELS / "answers_before_sync.py")
    disk = Exercised(tmp_path, kernel, f"blocks={BLOCKS}", "largest=2", "flush_every=7", "operations=400")
    disk.run()
    found = disk.judged(Cuts(exhaustive_max=3, samples=2))
    assert found.lost
    assert "has lost operation" in found.examples[0]


def test_the_guests_history_alone_finds_it_out_when_the_backend_says_nothing(tmp_path):
    """The second witness: a backend that does not note its answers. At depth 1 its next request comes behind them."""
    kernel = str(KERNELS / "answers_before_sync.py")
    disk = Exercised(tmp_path, kernel, f"blocks={BLOCKS}", "largest=2", "flush_every=7", "operations=400", "depth=1")
    disk.run()
    history = list(unpack_all(disk.acks.read_bytes()))
    silent = [record for record in disk.records() if record.kind is not LogKind.FLUSHED]
    assert judge(bytes(IMAGE_BYTES), silent, history, SEED, Cuts(exhaustive_max=3, samples=2)).lost
