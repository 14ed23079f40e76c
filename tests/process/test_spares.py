"""Warm spares under load: whoever dies, and when, nothing acknowledged is lost and no process is left."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, Domain, DomainState, EventStream
from hvd.transport import messages as m
from hvd.transport.messages import DomainConfig
from tests.process.disk_load import FOREVER, DiskLoad
from tests.waiting import wait_for

DEADLINE_S = 60.0
KERNELS = Path(__file__).parent / "kernels"


class Load(DiskLoad):
    """With a driver domain that has a spare."""

    def __init__(self, directory: Path, kernel: str = "hvd:driver_domain") -> None:
        driver = DomainConfig("driver", kernel, driver_domain=True, spare=True, restart=FOREVER)
        super().__init__(directory, driver, ("blocks=1024", "largest=16", "pace_ms=1"))

    def progress(self, operations: int = 50) -> None:
        """Until so many more operations are acknowledged."""
        wanted = self._operations() + operations
        wait_for(lambda: self._operations() >= wanted, lambda: f"{operations} operations; {self.driver.info()}")

    def _operations(self) -> int:
        self.checker.follow()
        return self.checker.verdict.operations

    def stand_by(self) -> None:
        """With the domain and its spare there, and nothing of the dead any more, who give way to others."""
        wait_for(lambda: self.driver.info().spare == "stands by", lambda: f"a spare: {self.driver.info()}")
        wait_for(lambda: len(processes(self.cluster, "driver")) == 2, "the dead to be gone")

    def spare_pid(self) -> int:
        """The process of the domain's next incarnation, by the name it has and what it is not."""
        return next(pid for pid in processes(self.cluster, "driver") if pid != self.driver.pid)


def processes(cluster: Cluster, name: str) -> list[int]:
    """The machine's children that are named after this domain."""
    machine = cluster.info()["machine_pid"]
    children = Path(f"/proc/{machine}/task/{machine}/children").read_text().split()
    return [int(pid) for pid in children if _comm(pid) == f"hvd:{name}"]


def _comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def wait_gone(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], DEADLINE_S)[0]
    finally:
        os.close(pidfd)


def next_event(events: EventStream, name: str, event: str) -> str:
    """What is said with the next event of this kind."""
    while (told := events.next(DEADLINE_S)).event != event or told.name != name:
        continue
    return told.detail


# ---- deaths ----------------------------------------------------------------------------------------------------------


def kill_active(load: Load) -> None:
    incarnation = load.driver.incarnation
    load.driver.kill()
    wait_for(lambda: load.driver.incarnation > incarnation, lambda: str(load.driver.info()))


def kill_spare(load: Load) -> None:
    incarnation, restarts = load.driver.incarnation, load.driver.restarts
    with load.cluster.events() as events:
        os.kill(load.spare_pid(), signal.SIGKILL)
        next_event(events, "driver", "spare died")
    assert (load.driver.incarnation, load.driver.restarts) == (incarnation, restarts)


def kill_both_at_once(load: Load) -> None:
    pids = processes(load.cluster, "driver")
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_gone(pid)


def kill_the_spare_as_it_takes_over(load: Load) -> None:
    spare = load.spare_pid()
    with load.cluster.events() as events:
        load.driver.kill()
        next_event(events, "driver", "starting")
        os.kill(spare, signal.SIGKILL)


def kill_the_broker_as_it_takes_over(load: Load) -> None:
    """The order decides nothing: whether it finds the death recorded, or the spare promoted, or neither."""
    broker = load.cluster.info()["broker_pid"]
    pid = load.driver.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(random.Random(pid).uniform(0, 0.006))
    os.kill(broker, signal.SIGKILL)


def kill_while_the_driver_is_paused(load: Load) -> None:
    load.driver.pause()
    kill_active(load)


def kill_with_the_guest_paused(load: Load) -> None:
    load.guest.pause()
    kill_active(load)
    load.guest.unpause()


KILLS = [kill_active, kill_active, kill_active, kill_spare, kill_both_at_once, kill_the_spare_as_it_takes_over,
         kill_the_broker_as_it_takes_over, kill_the_broker_as_it_takes_over, kill_while_the_driver_is_paused,
         kill_with_the_guest_paused]  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(300)
def test_no_death_of_a_domain_its_spare_or_the_broker_loses_anything(tmp_path: Path, seed: int) -> None:
    kinds = random.Random(seed).sample(KILLS, len(KILLS))
    with Load(tmp_path) as load:
        for kind in kinds:
            load.stand_by()
            load.progress()
            kind(load)
            load.progress()
            verdict = load.checker.check()
            assert verdict.intact and not verdict.failed, f"seed {seed}, {kind.__name__}: {verdict}"
        load.stand_by()
        assert len(processes(load.cluster, "driver")) == 2
        load.finish()


def test_a_death_with_a_spare_is_a_takeover_and_no_start(tmp_path: Path) -> None:
    with Load(tmp_path) as load, load.cluster.events() as events:
        load.stand_by()
        spare = load.spare_pid()
        load.driver.kill()
        assert next_event(events, "driver", "starting") == "its spare takes over"
        load.driver.wait_ready(DEADLINE_S)
        assert (load.driver.pid, load.driver.restarts) == (spare, 1)
        load.progress()


def test_a_broker_that_dies_finds_the_spare_again(tmp_path: Path) -> None:
    with Load(tmp_path) as load:
        load.stand_by()
        spare = load.spare_pid()
        os.kill(load.cluster.info()["broker_pid"], signal.SIGKILL)
        assert load.driver.info().spare == "stands by"
        assert load.spare_pid() == spare
        load.driver.kill()
        wait_for(lambda: load.driver.pid == spare, lambda: str(load.driver.info()))
        load.progress()


# ---- a spare goes with its domain ------------------------------------------------------------------------------------


def destroy(driver: Domain) -> None:
    driver.destroy()


def shut_down(driver: Domain) -> None:
    driver.shutdown()


@pytest.mark.parametrize("end", [destroy, shut_down])
def test_a_domain_that_ends_takes_its_spare_with_it(tmp_path: Path, end: Callable[[Domain], None]) -> None:
    driver = DomainConfig("driver", "hvd:driver_domain", driver_domain=True, spare=True)
    with Cluster.build([driver]) as cluster:
        domain = cluster.domain("driver")
        domain.wait_ready(DEADLINE_S)
        wait_for(lambda: domain.info().spare == "stands by", lambda: str(domain.info()))
        pids = processes(cluster, "driver")
        assert len(pids) == 2
        end(domain)
        for pid in pids:
            wait_gone(pid)
        wait_for(lambda: not processes(cluster, "driver"), lambda: "no process of it")


def test_a_reboot_boots_anew_and_another_spare_stands_by(tmp_path: Path) -> None:
    driver = DomainConfig("driver", "hvd:driver_domain", driver_domain=True, spare=True)
    with Cluster.build([driver]) as cluster:
        domain = cluster.domain("driver")
        domain.wait_ready(DEADLINE_S)
        wait_for(lambda: domain.info().spare == "stands by", lambda: str(domain.info()))
        pids = processes(cluster, "driver")
        domain.reboot()
        for pid in pids:
            wait_gone(pid)
        wait_for(lambda: domain.info().spare == "stands by", lambda: str(domain.info()))
        assert domain.pid not in pids


# ---- what a spare does before it takes over --------------------------------------------------------------------------

PROBE = """
import os
with open({log!r}, 'a') as log:
    log.write(f'loaded {{os.getpid()}}\\n')

def main(guest):
    with open({log!r}, 'a') as log:
        log.write(f'main {{guest.incarnation}}\\n')
    guest.runtime.store.write('data/serves', guest.incarnation)
    with open({log!r}, 'a') as log:
        log.write(f'runs {{guest.incarnation}}\\n')
    guest.run_forever()
"""


def test_a_spares_kernel_runs_up_to_its_first_hypercall_and_no_further(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    kernel = tmp_path / "kernel.py"
    kernel.write_text(PROBE.format(log=str(log)))
    config = DomainConfig("probe", str(kernel), spare=True, paths=[f"{log}:w"], restart=FOREVER)
    with Cluster.build([config]) as cluster:
        domain = cluster.domain("probe")
        domain.wait_ready(DEADLINE_S)
        wait_for(lambda: domain.info().spare == "stands by", lambda: str(domain.info()))
        home = f"/local/domain/{domain.domid}/data/serves"
        wait_for(lambda: cluster.call(m.StoreRead(0, home)) == b"1", lambda: "the first incarnation at work")
        wait_for(lambda: "runs 1" in log.read_text(), log.read_text)  # which it notes behind the call
        lines = [line for line in log.read_text().splitlines() if not line.startswith("loaded")]
        assert lines == ["main 1", "runs 1"]
        domain.kill()
        wait_for(lambda: "runs 2" in log.read_text(), log.read_text)
        assert cluster.call(m.StoreRead(0, home)) == b"2"


def test_spares_that_cannot_take_over_are_bounded_and_the_reason_is_told(tmp_path: Path) -> None:
    """A kernel that works the first time only: its spares die of what they load."""
    mark = tmp_path / "mark"
    mark.mkdir()
    kernel = tmp_path / "kernel.py"
    kernel.write_text(f"import os\nos.mkdir({str(mark / 'once')!r})\ndef main(guest):\n    guest.run_forever()\n")
    config = DomainConfig("once", str(kernel), spare=True, paths=[f"{mark}:w"])
    with Cluster.build([config]) as cluster:
        domain = cluster.domain("once")
        wait_for(lambda: domain.info().spare.startswith("none: 5 spares in a row died"), lambda: str(domain.info()))
        text = domain.info().spare.removeprefix("none: ")
        assert "the last: kernel " in text
        assert "File exists" in text
        assert (domain.state, domain.restarts) == (DomainState.RUNNING, 0)
        assert any(text in line for line in cluster.dmesg())


def test_a_spare_that_connects_without_end_goes_and_its_domain_stays() -> None:
    """It runs its kernel's code while it stands by: nothing has been tried by it in the domain's name."""
    config = DomainConfig("floods", str(KERNELS / "floods_as_a_spare.py"), spare=True, restart=FOREVER)
    with Cluster.build([config]) as cluster, cluster.events() as events:
        domain, broker = cluster.domain("floods"), cluster.info()["broker_pid"]
        domain.wait_ready(DEADLINE_S)
        next_event(events, "floods", "spare died")
        assert (domain.state, domain.restarts, cluster.info()["broker_pid"]) == (DomainState.RUNNING, 0, broker)
