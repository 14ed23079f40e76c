"""The block pair with real processes: what a disk does, bad input from either end, and ends that lie."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy, StoreRead, StoreWrite
from tests.waiting import wait_for

KERNELS = Path(__file__).with_name("kernels")
USER = str(KERNELS / "disk_user.py")
HOSTILE, LIAR = "hvd.domains.hostile.frontend:main", "hvd.domains.hostile.backend:main"
DEADLINE_S = 40.0
FOREVER = RestartPolicy(limit=0)
IMAGE_BYTES = 8 << 20
COUNTED = ("ports", "granted_pages", "mappings", "extents", "descriptors", "domains")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.build([DomainConfig("driver", "hvd:driver_domain", driver_domain=True, restart=FOREVER)]) as cluster:
        driver = cluster.domain("driver")
        wait_for(lambda: has_node(cluster, f"/local/domain/{driver.domid}/console/tty"), lambda: "the driver's console")
        yield cluster


Boot = Callable[..., Domain]


@pytest.fixture
def boot(cluster: Cluster, tmp_path: Path) -> Iterator[Boot]:
    """Creates a guest with one disk; behind the test everything is given back, and the driver has not noticed."""
    before, incarnation = counts(cluster), cluster.domain("driver").incarnation
    guests: list[Domain] = []

    def create(kernel: str, *args: str, mode: str = "w", image: Path | None = None, backend: str = "driver",
               name: str = "guest", on_crash: str = "preserve", paths: tuple[str, ...] = (),
               **keys: str) -> Domain:  # fmt: skip
        if image is None:
            image = tmp_path / f"{name}.img"
            image.touch()
            os.truncate(image, IMAGE_BYTES)
        disk = DeviceConfig("vbd", 51712, backend, {"params": str(image), "mode": mode, "dev": "xvda"}, keys)
        guests.append(cluster.create(DomainConfig(
            name, kernel, args=list(args), devices=[disk], on_crash=on_crash, on_poweroff="preserve", restart=FOREVER,
            paths=list(paths),
        )))  # fmt: skip
        return guests[-1]

    yield create
    for guest in guests:
        if guest.domid in cluster.infos():
            guest.destroy()
    wait_for(lambda: counts(cluster) == before, lambda: f"{before}, found {counts(cluster)}")
    assert cluster.domain("driver").incarnation == incarnation


def counts(cluster: Cluster) -> dict[str, int]:
    info = cluster.info()
    return {name: info[name] for name in COUNTED}


def has_node(cluster: Cluster, path: str) -> bool:
    try:
        cluster.call(StoreRead(0, path))
    except HypercallError:
        return False
    return True


def last_death(guest: Domain) -> str:
    return guest.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death


def assert_passed(guest: Domain) -> None:
    assert last_death(guest) == "poweroff", guest.console_log()


# ---- what a disk does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["operations", "megabytes", "many", "batches", "into_memory", "buffers", "nonsense"])
def test_a_disk_reads_writes_flushes_and_discards(boot, body):
    assert_passed(boot(USER, body))


@pytest.mark.parametrize("order", ["1", "4"])
def test_a_ring_of_several_pages_serves(boot, order):
    assert_passed(boot(USER, "many", **{"hvd-ring-page-order": order}))


def test_what_is_written_is_on_the_image(boot, tmp_path):
    image = tmp_path / "seen.img"
    image.write_bytes(bytes(IMAGE_BYTES))
    assert_passed(boot(USER, "many", image=image))
    assert image.read_bytes()[8 * 512 : 8 * 512 + 8] == (1).to_bytes(8, "little")


def test_a_readonly_disk_refuses_writes_at_both_ends(boot, tmp_path):
    image = tmp_path / "readonly.img"
    image.write_bytes(bytes(IMAGE_BYTES))
    assert_passed(boot(USER, "readonly", mode="r", image=image))
    assert_passed(boot(HOSTILE, "raw_write_to_readonly", mode="r", image=image, name="hostile"))
    assert image.read_bytes() == bytes(IMAGE_BYTES)


def test_the_pages_of_a_ring_may_be_any_grants(boot):
    assert_passed(boot(USER, "scattered_ring", **{"hvd-ring-page-order": "2", "scattered": "1"}))


def test_time_in_which_a_guest_was_paused_is_not_waited(boot, cluster):
    guest, driver = boot(USER, "paused_in_flight", **{"timeout-ms": "300"}), cluster.domain("driver")
    guest.wait_ready()
    stop(driver)
    cluster.call(StoreWrite(0, f"/local/domain/{guest.domid}/data/stopped", b"1"))
    wait_node(cluster, guest, "waiting")
    guest.pause()
    time.sleep(0.6)  # what is tested is time itself: twice the disk's timeout passes
    guest.unpause()
    wait_node(cluster, guest, "went_on")
    driver.unpause()
    assert_passed(guest)


def test_a_frontend_without_persistent_grants_has_them_back_with_the_answer(boot):
    assert_passed(boot(USER, "not_persistent", persistent="0"))


def test_a_killed_guest_is_noticed_and_its_next_incarnation_served(boot, cluster):
    guest = boot("hvd:idle", on_crash="restart")
    for incarnation in (1, 2, 3):
        guest.wait_until(lambda info, at=incarnation: info.ready and info.incarnation == at, "to be ready", DEADLINE_S)
        guest.kill()
    guest.wait_ready()


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_missing_image_is_named_to_the_guest_and_served_once_it_is_there(boot, tmp_path):
    image = tmp_path / "absent.img"
    guest = boot(USER, "operations", image=image)
    assert "No such file or directory" in (death := last_death(guest))
    assert str(image) in death
    image.write_bytes(bytes(IMAGE_BYTES))
    guest.reboot()
    guest.wait_until(lambda info: info.incarnation == 2 and info.state is DomainState.PRESERVED, "to end", DEADLINE_S)
    assert_passed(guest)


def test_an_image_of_part_of_a_sector_is_named_to_the_guest(boot, tmp_path):
    image = tmp_path / "odd.img"
    image.write_bytes(bytes(1000))
    death = last_death(boot(USER, "operations", image=image))
    assert f"image {image} has 1000 bytes, which is no multiple of 512" in death


def test_an_image_has_one_writer_whoever_else_asks_for_it(boot, tmp_path):
    first = boot("hvd:idle", name="first")
    first.wait_ready(DEADLINE_S)
    image = tmp_path / "first.img"
    busy = f"image {image} is written by another device, here or in another cluster"
    second = boot(USER, "operations", name="second", image=image)
    assert busy in last_death(second)
    assert_passed(boot(USER, "readonly", name="reader", mode="r", image=image))
    with Cluster.build([DomainConfig("driver", "hvd:driver_domain", driver_domain=True)]) as other:
        disk = DeviceConfig("vbd", 51712, "driver", {"params": str(image), "mode": "w", "dev": "xvda"}, {})
        assert busy in last_death(other.create(DomainConfig("guest", "hvd:idle", devices=[disk], on_crash="preserve")))
    first.destroy()
    second.reboot()
    second.wait_until(lambda info: info.incarnation == 2 and info.state is DomainState.PRESERVED, "to end", DEADLINE_S)
    assert_passed(second)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_an_image_that_is_no_file_is_refused_and_holds_up_nobody(boot, tmp_path, make):
    make(image := tmp_path / "no-file")
    assert "neither a file nor a block device" in last_death(boot(USER, "readonly", mode="r", image=image))
    assert_passed(boot(USER, "operations", name="other"))


def test_an_image_that_shrinks_answers_eio(boot, tmp_path):
    image = tmp_path / "shrinking.img"
    image.write_bytes(bytes(IMAGE_BYTES))
    kernel = tmp_path / "kernel.py"
    kernel.write_text(f"""
import os
def main(guest):
    os.truncate({str(image)!r}, 512)
    disk = guest.disk()
    assert disk.read(0, 1) == bytes(512)
    disk.read(8, 8)
""")
    assert "Input/output error" in last_death(boot(str(kernel), image=image, paths=(f"{image}:w",)))


# ---- hostile frontends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["bad_requests", "index_jump", "double_fetch", "garbage_keys", "reconnects"])
def test_a_hostile_frontend_harms_its_own_device_only(boot, body):
    """XSA-39, XSA-155, XSA-350 among them."""
    assert_passed(boot(HOSTILE, body, name="hostile"))
    assert_passed(boot(USER, "operations"))


def test_devices_that_come_and_go_leave_no_watch_behind(boot, cluster):
    """A domain has 128 watches; more devices than that come and go."""
    devices = [DeviceConfig("echo", number, "driver") for number in range(9)]
    for number in range(15):
        guest = cluster.create(DomainConfig(f"g{number}", "hvd:idle", devices=devices))
        guest.wait_ready()
        guest.destroy()
    assert_passed(boot(USER, "operations"))


# ---- hostile backends ------------------------------------------------------------------------------------------------


@pytest.fixture
def liar(cluster: Cluster) -> Iterator[Callable[[str], Domain]]:
    drivers: list[Domain] = []

    def create(lie: str) -> Domain:
        drivers.append(cluster.create(DomainConfig("liar", LIAR, args=[lie], driver_domain=True, restart=FOREVER)))
        return drivers[0]

    yield create
    for driver in drivers:
        driver.destroy()


@pytest.mark.parametrize("lie", ["invented", "repeated", "jumping"])
def test_what_a_lying_backend_does_not_answer_ends_in_eio_and_its_successor_serves(cluster, boot, liar, tmp_path, lie):
    driver = liar(lie)
    kernel = tmp_path / "kernel.py"
    kernel.write_text("""
import errno
def served(call, *arguments):
    while True:  # by whoever answers within the disk's timeout
        try:
            return call(*arguments)
        except OSError as error:
            assert error.errno == errno.EIO, error
def main(guest):
    disk, done = guest.disk(), []
    ids = [disk.submit_write(8 * index, bytes(4096)) for index in range(3)]
    while disk.in_flight:
        done += disk.completions(5)
    assert sorted(completion.id for completion in done) == ids
    failed = [completion.errno for completion in done if completion.errno]
    assert set(failed) == {errno.EIO} and len(failed) >= 2, done
    guest.runtime.store.write("data/lied-to", "1")
    served(disk.write, 0, b"late" * 128)
    assert served(disk.read, 0, 1) == b"late" * 128
""")
    guest = boot(str(kernel), backend="liar", **{"timeout-ms": "300"})
    wait_node(cluster, guest, "lied-to")
    driver.kill(signal.SIGKILL)
    assert_passed(guest)


def wait_node(cluster: Cluster, guest: Domain, name: str) -> None:
    path = f"/local/domain/{guest.domid}/data/{name}"

    def written() -> bool:
        if guest.state is DomainState.PRESERVED:
            pytest.fail(f"{guest.last_death}\n{guest.console_log()}")
        return has_node(cluster, path)

    wait_for(written, lambda: f"{path}; {guest.info()}")


def stop(domain: Domain) -> None:
    """Pause it, and see that the kernel has stopped it."""
    domain.pause()
    wait_for(lambda: status(domain) == "T", lambda: f"{domain.name} to stand still; it is {status(domain)}")


def status(domain: Domain) -> str:
    return Path(f"/proc/{domain.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_backend_that_writes_nonsense_is_an_error_that_names_the_device(boot, liar):
    liar("many_sectors")
    assert "vbd 51712" in last_death(boot(USER, "operations", backend="liar"))


def test_a_backend_that_stops_costs_eio_once_and_its_late_answer_only_frees_the_pages(boot, cluster):
    guest, driver = boot(USER, "timeout", **{"timeout-ms": "300"}), cluster.domain("driver")
    home = f"/local/domain/{guest.domid}/data"
    guest.wait_ready()
    stop(driver)
    cluster.call(StoreWrite(0, f"{home}/stopped", b"1"))
    wait_node(cluster, guest, "expired")
    driver.unpause()
    cluster.call(StoreWrite(0, f"{home}/going", b"1"))
    assert_passed(guest)
