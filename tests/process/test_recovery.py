"""Deaths under load: after any of them every request has been answered once, and every acknowledged block is intact."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Domain
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig
from tests.process.disk_load import FOREVER, DiskLoad
from tests.waiting import wait_for

KERNELS = Path(__file__).with_name("kernels")
DEADLINE_S = 25.0
PACE = "pace_ms=3"
"""The deaths are what is tested: the machine has other work too."""
COUNTED = ("ports", "granted_pages", "mappings", "extents", "descriptors", "domains")


class Load(DiskLoad):
    """With a driver domain that may die as often as anybody likes."""

    def __init__(self, directory: Path, *, driver: str = "hvd:driver_domain", driver_args: tuple[str, ...] = (),
                 options: tuple[str, ...] = (PACE,), keys: dict[str, str] | None = None) -> None:  # fmt: skip
        config = DomainConfig("driver", driver, args=list(driver_args), driver_domain=True, restart=FOREVER)
        super().__init__(directory, config, options, keys)

    def wait_progress(self, operations: int) -> None:
        """Until so many more operations have been acknowledged."""
        self.checker.follow()
        wanted = self.checker.verdict.operations + operations

        def reached() -> bool:
            self.checker.follow()
            return self.checker.verdict.operations >= wanted

        wait_for(reached, lambda: f"{operations} operations; {self.guest.info()} {self.driver.info()}")

    def counts(self) -> dict[str, int]:
        info = self.cluster.info()
        return {name: info[name] for name in COUNTED}

    def wait_counts(self, expected: dict[str, int]) -> None:
        """Everything that the dead held has been given back."""
        wait_for(lambda: self.counts() == expected, lambda: f"{expected}, found {self.counts()}")


# ---- kills from outside, at random points ----------------------------------------------------------------------------


def kill_driver(load: Load) -> None:
    load.driver.kill()
    load.driver.wait_ready()


def kill_driver_again_while_it_recovers(load: Load) -> None:
    with load.cluster.events() as events:
        incarnation = load.driver.incarnation
        load.driver.kill()
        while (event := events.next(DEADLINE_S)).event != "starting" or event.incarnation <= incarnation:
            continue
    wait_for(lambda: kill_if_born(load.driver), lambda: "the next incarnation's process")
    load.driver.wait_ready()


def kill_if_born(domain: Domain) -> bool:
    try:
        domain.kill()
    except HypercallError as error:
        assert error.errno == errno.ESRCH
        return False
    return True


def kill_driver_while_the_guest_is_paused(load: Load) -> None:
    load.guest.pause()
    kill_driver(load)
    load.guest.unpause()


def kill_both(load: Load) -> None:
    load.driver.kill()
    load.guest.kill()
    load.driver.wait_ready()
    load.guest.wait_ready()


def kill_guest(load: Load) -> None:
    load.guest.kill()
    load.guest.wait_ready()


KILLS = {
    kill_driver: 10,
    kill_driver_again_while_it_recovers: 3,
    kill_driver_while_the_guest_is_paused: 3,
    kill_both: 2,
    kill_guest: 2,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.timeout(300)
def test_25_kills_at_random_points_lose_tear_misplace_and_duplicate_nothing(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    kinds = [kind for kind, weight in KILLS.items() for _ in range(weight)]
    kinds = source.sample(kinds + kinds, 25)
    with Load(tmp_path, options=("depth=8", "blocks=2048", "largest=256", "pace_ms=1")) as load:
        load.wait_progress(100)
        before = load.counts()
        for number, kind in enumerate(kinds):
            load.wait_progress(source.randint(1, 60))
            kind(load)
            load.wait_progress(20)
            verdict = load.checker.check()
            assert verdict.intact and not verdict.failed, f"seed {seed}, kill {number} ({kind.__name__}): {verdict}"
        load.wait_counts(before)
        load.finish()


# ---- a kill between the I/O and its answer ---------------------------------------------------------------------------


def test_a_backend_killed_between_its_io_and_the_answer_has_every_request_completed_once(tmp_path: Path) -> None:
    operations, odds = 3000, 100
    options = ("depth=8", "blocks=2048", "largest=32", f"operations={operations}")
    kernel = str(KERNELS / "dies_after_io.py")
    with Load(tmp_path, driver=kernel, driver_args=(str(odds),), options=options) as load:
        load.assert_finished()
        assert load.driver.restarts >= operations // odds // 3
    assert load.checker.verdict.operations == operations
