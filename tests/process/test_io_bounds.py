"""`io_bps`: all processes of a domain, and all that follow them, are held to it, and none is late to die for it."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hvd.toolstack.cluster import Cluster, Domain, StartFailed
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.transport.cgroups import hierarchies
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from tests.waiting import wait_for

BPS = 300_000
FOREVER = RestartPolicy(limit=0)
LACKING = lacking_here()
IN_KERNEL = """
import mmap, os

def main(guest):
    descriptor = os.open(guest.args[0], os.O_RDONLY | os.O_DIRECT)
    os.readv(descriptor, [mmap.mmap(-1, os.fstat(descriptor).st_size)])
"""
LOOP_CTL_ADD, LOOP_CTL_REMOVE, NEW_DISK = 0x4C80, 0x4C81, 777
LARGE = 64 << 20
"""Takes 220 s; no signal ends who waits for it."""


def bounds(pid: int | None) -> dict[str, set[str]]:
    """By file of its groups, the lines in it."""
    own, mounts = Path(f"/proc/{pid}/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    found = {}
    for each in hierarchies(own, mounts, lambda path: Path(path).read_text() if Path(path).exists() else ""):
        for name in ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "io.max"):
            if each.directory.endswith(f"/{pid}") and (path := Path(each.directory, name)).exists():
                found[name] = set(path.read_text().splitlines())
    return found


def assert_bound(pid: int | None, bps: int = BPS) -> None:
    disks = {path.read_text().strip() for path in Path("/sys/block").glob("*/dev")}
    found = bounds(pid)
    assert found
    for name, lines in found.items():
        most = f"rbps={bps} wbps={bps} riops=max wiops=max" if name == "io.max" else str(bps)
        assert lines == ({f"{disk} {most}" for disk in disks} if bps else set())


@pytest.fixture(autouse=True)
def no_disk_comes_or_goes_meanwhile() -> Iterator[None]:
    """By a test of these in another process: which disks the host has is asked again for what is expected."""
    with Path(__file__).open() as file:

        def is_ours() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        wait_for(is_ours, "another test of the host's disks to be over")
        yield


def comes_from_a_disk(image: Path) -> bool:
    """Whether the kernel counts what is read of it past every cache: no file system in memory is bound."""
    try:
        descriptor = os.open(image, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    before = read_of_disks()
    os.readv(descriptor, [mmap.mmap(-1, mmap.PAGESIZE)])
    os.close(descriptor)
    return read_of_disks() > before


def read_of_disks() -> int:
    """By this process, in bytes."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        if not bounds(made.domain("Domain-0").pid):
            pytest.skip(f"no control groups that bound disks: {LACKING.get('cgroups', 'neither blkio nor io')}")
        yield made


def spare_of(cluster: Cluster, domain: Domain) -> int:
    """The process that stands by, by the name that it has and what it is not."""
    wait_for(lambda: domain.info().spare == "stands by", lambda: f"a spare: {domain.info()}")
    machine, found = psutil.Process(cluster.info()["machine_pid"]), set[int]()

    def is_alone() -> bool:
        found.clear()
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(child.pid for child in machine.children() if child.name() == f"hvd:{domain.name}")
            found.discard(domain.pid or 0)
            return len(found) == 1
        return False

    wait_for(is_alone, lambda: f"the dead to be gone: {found}")
    return found.pop()


def next_pid(domain: Domain) -> int:
    """Kill it; the process of its next incarnation, which is ready."""
    before = domain.incarnation
    os.kill(domain.pid or 0, signal.SIGKILL)
    domain.wait_until(lambda info: info.ready and info.incarnation > before, "to be back", 60.0)
    return domain.pid or 0


def test_a_domain_is_held_to_it_on_every_disk_and_so_are_its_spares_and_successors(cluster: Cluster) -> None:
    driver = cluster.create(
        DomainConfig("driver", "hvd:driver_domain", driver_domain=True, spare=True, io_bps=BPS, restart=FOREVER)
    )
    driver.wait_ready()
    assert driver.info().io_bps == BPS
    assert_bound(driver.pid)
    for _ in range(2):
        spare = spare_of(cluster, driver)
        assert_bound(spare)
        assert next_pid(driver) == spare


def test_a_domain_that_starts_again_is_held_to_it_again_and_one_without_it_to_nothing(cluster: Cluster) -> None:
    for bps in (BPS, 0):
        guest = cluster.create(DomainConfig(f"guest-{bps}", "hvd:idle", io_bps=bps, restart=FOREVER))
        guest.wait_ready()
        assert_bound(guest.pid, bps)
        assert_bound(next_pid(guest), bps)


@pytest.fixture
def give_disk() -> Iterator[Callable[[], str]]:
    """Gives the host one more disk, as root may: its MAJ:MIN."""
    given: list[int] = []

    def give() -> str:
        try:
            with open("/dev/loop-control") as control:
                given.append(fcntl.ioctl(control, LOOP_CTL_ADD, NEW_DISK))
        except OSError as error:
            pytest.skip(f"the host is given no disk: {error}")
        return Path(f"/sys/block/loop{NEW_DISK}/dev").read_text().strip()

    yield give
    for number in given:
        with open("/dev/loop-control") as control:
            fcntl.ioctl(control, LOOP_CTL_REMOVE, number)


def test_a_disk_that_the_host_was_given_later_is_bound_when_a_medium_is_plugged_in(
    cluster: Cluster, tmp_path: Path, give_disk: Callable[[], str]
) -> None:
    driver = cluster.create(DomainConfig("driver", "hvd:driver_domain", driver_domain=True, io_bps=BPS))
    free = cluster.create(DomainConfig("free", "hvd:driver_domain", driver_domain=True))
    guest = cluster.create(DomainConfig("guest", "hvd:idle"))
    cluster.wait_ready()
    new = give_disk()
    assert all(line.split()[0] != new for lines in bounds(driver.pid).values() for line in lines)
    for devid, backend in enumerate(("driver", "free")):
        image = tmp_path / f"{backend}.img"
        image.write_bytes(bytes(1 << 20))
        keys = {"params": str(image), "mode": "w", "dev": f"xvd{devid}"}
        guest.attach(DeviceConfig("vbd", 51712 + 16 * devid, backend, keys))
    wait_for(lambda: all(any(line.split()[0] == new for line in lines) for lines in bounds(driver.pid).values()))
    assert_bound(driver.pid)
    assert_bound(free.pid, 0)


def test_a_program_is_in_the_group_of_its_domain(cluster: Cluster) -> None:
    domain = cluster.create(DomainConfig("program", "/bin/sleep", args=["1000"], io_bps=BPS))
    domain.wait_ready()
    assert_bound(domain.pid)
    (program,) = psutil.Process(domain.pid).children()
    assert Path(f"/proc/{program.pid}/cgroup").read_text() == Path(f"/proc/{domain.pid}/cgroup").read_text()


def test_whoever_is_killed_does_not_wait_for_the_disk_nor_does_a_machine_that_powers_off(
    cluster: Cluster, tmp_path: Path
) -> None:
    kernel, image = tmp_path / "in_kernel.py", tmp_path / "image"
    kernel.write_text(IN_KERNEL)
    image.write_bytes(os.urandom(LARGE))
    os.sync()
    if not comes_from_a_disk(image):
        pytest.skip(f"{tmp_path} is on no disk")
    readers = []
    for name in ("killed", "powered-off"):
        config = DomainConfig(name, str(kernel), args=[str(image)], paths=[str(image)], io_bps=BPS, memory=256,
                              heartbeat_ms=0, on_crash="destroy")  # fmt: skip
        domain = cluster.create(config)
        wait_for(lambda d=domain: d.pid and psutil.Process(d.pid).status() == psutil.STATUS_DISK_SLEEP)  # type: ignore[misc]
        readers.append((domain, psutil.Process(domain.pid)))
    (killed, _), (_, left) = readers
    killed.destroy()
    killed.wait_gone(60.0)
    os.kill(cluster.info()["machine_pid"], signal.SIGTERM)
    wait_for(lambda: not left.is_running())


def test_where_there_are_no_such_groups_a_domain_that_requires_them_is_not_run() -> None:
    if "cgroups" not in LACKING:
        pytest.skip("there are: the unit tests have a hierarchy without")
    config = DomainConfig("guest", "hvd:idle", io_bps=BPS, sandbox_require=["cgroups"], restart=FOREVER)
    with pytest.raises(StartFailed, match="lacks what is required of it: cgroups"):
        Cluster.build([config]).start()
