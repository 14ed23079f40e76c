"""What a spare finds done when it takes over: used where it is right, given back where it is not, never trusted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, Domain
from hvd.transport import messages as m
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig, DomainConfig
from tests.process.disk_load import FOREVER, IMAGE_BYTES
from tests.process.test_spares import Load
from tests.waiting import wait_for

DEADLINE_S = 60.0
CONNECTED = b"4"
LIAR = """
LIES = [
    lambda disk, keys: {"ring-ref": "999999"},
    lambda disk, keys: {"ring-ref": str(disk._data.ref + 1)},
    lambda disk, keys: {"hvd-runs": str(disk._ring_pages.ref), "ring-ref": str(disk._data.ref)},
    lambda disk, keys: {"hvd-runs": "1 2 3 4 5"},
    lambda disk, keys: {"event-channel": "1"},
    lambda disk, keys: {"event-channel": "99999", "hvd-session": "9.9"},
    lambda disk, keys: {"protocol": "none"},
    lambda disk, keys: {f"junk{number}": "x" * 2000 for number in range(20)},
]

def main(guest):
    disk = guest.disk()
    publish = disk.publish
    lies = iter(LIES)

    def lie(backend_keys):
        keys = publish(backend_keys)
        return keys | next(lies)(disk, keys)

    disk.publish = lie
    guest.run_forever()
"""
LIES = LIAR.count("lambda")
SERVES_LATE = """
AUTO_READY = False

def main(guest):
    guest.sleep(0.3)  # as one that connects devices of its own does
    guest.serve_backends()
    guest.ready()
    guest.run_forever()
"""


ASKS_AT_ITS_SOCKET = """
import socket

AUTO_READY = False

def main(guest):
    guest.serve_backends()
    with socket.socket(socket.AF_UNIX) as store:
        store.connect("/var/run/xenstored/socket")
    guest.ready()
    guest.run_forever()
"""


def disk(directory: Path, number: int) -> DeviceConfig:
    image = directory / f"{number}.img"
    with image.open("wb") as made:
        made.truncate(IMAGE_BYTES)
    return DeviceConfig("vbd", number, "driver", {"params": str(image), "mode": "w", "dev": f"xvd{number}"}, {})


def take_over(load: Load) -> None:
    """Have the driver domain's spare be the domain, and the load go on."""
    load.stand_by()
    incarnation = load.driver.incarnation
    load.driver.kill()
    wait_for(lambda: load.driver.incarnation > incarnation, lambda: str(load.driver.info()))
    load.progress()


def wait_state(cluster: Cluster, driver: Domain, guest: Domain, devid: int) -> None:
    path = f"/local/domain/{driver.domid}/backend/vbd/{guest.domid}/{devid}"

    def keys() -> dict[str, bytes]:
        found: dict[str, bytes] = cluster.call(m.StoreReadAll(path))
        return found

    def is_served() -> bool:
        found = keys()
        return found.get("state") == CONNECTED and found.get("hvd-incarnation") == str(driver.incarnation).encode()

    wait_for(is_served, lambda: f"incarnation {driver.incarnation} to serve {keys()}")


def mapped(cluster: Cluster, driver: Domain) -> int:
    """How many mappings of others' pages the driver domain has."""
    rows = cluster.call(m.SysctlGrants(DOM0))["rows"]
    return sum(mapper == driver.domid for row in rows for mapper, *_ in row["mapped"])


@pytest.mark.timeout(300)
def test_devices_that_come_and_go_while_a_spare_stands_by_are_what_it_serves(tmp_path: Path) -> None:
    with Load(tmp_path) as load:
        take_over(load)
        before = mapped(load.cluster, load.driver)
        load.stand_by()
        load.guest.attach(disk(tmp_path, 1))
        wait_state(load.cluster, load.driver, load.guest, 1)
        take_over(load)
        wait_state(load.cluster, load.driver, load.guest, 1)
        load.stand_by()
        load.guest.detach("vbd", 1)
        take_over(load)
        wait_for(lambda: mapped(load.cluster, load.driver) == before, lambda: f"{before} mappings, as before")
        load.finish()


@pytest.mark.timeout(300)
def test_a_device_is_plugged_in_and_taken_away_in_the_moment_of_a_takeover(tmp_path: Path) -> None:
    with Load(tmp_path) as load:
        for number in range(1, 4):
            load.stand_by()
            load.driver.kill()
            load.guest.attach(disk(tmp_path, number))
            wait_state(load.cluster, load.driver, load.guest, number)
            load.stand_by()
            load.driver.kill()
            load.guest.detach("vbd", number)
            load.progress()
        load.finish()


@pytest.mark.timeout(300)
def test_more_devices_than_are_answered_ahead_are_all_served(tmp_path: Path) -> None:
    with Load(tmp_path) as load:
        for number in range(1, 12):
            load.guest.attach(disk(tmp_path, number))
            wait_state(load.cluster, load.driver, load.guest, number)
        for _ in range(2):
            take_over(load)
            for number in range(1, 12):
                wait_state(load.cluster, load.driver, load.guest, number)
        load.finish()


@pytest.mark.timeout(300)
def test_a_guest_that_dies_with_its_driver_domain_finds_its_disk_again(tmp_path: Path) -> None:
    """Its successor's ports and pages have the numbers, or not, of those that the spare has been given."""
    chance = random.Random(1)
    with Load(tmp_path) as load:
        for _ in range(4):
            load.stand_by()
            load.progress()
            incarnation = load.guest.incarnation
            for domain in chance.sample([load.guest, load.driver], 2):
                domain.kill()
            wait_for(lambda: load.guest.incarnation > incarnation, lambda: str(load.guest.info()))  # noqa: B023
            load.progress()
            verdict = load.checker.check()
            assert verdict.intact and not verdict.failed, verdict


@pytest.mark.timeout(300)
def test_a_driver_domain_that_waits_before_it_serves_hears_what_its_guests_published_meanwhile(tmp_path: Path) -> None:
    kernel = tmp_path / "late.py"
    kernel.write_text(SERVES_LATE)
    with Load(tmp_path, str(kernel)) as load:
        for _ in range(2):
            take_over(load)
        load.finish()


@pytest.mark.timeout(300)
def test_a_spare_that_takes_over_finds_its_xenstore_socket_at_once(tmp_path: Path) -> None:
    kernel = tmp_path / "asks.py"
    kernel.write_text(ASKS_AT_ITS_SOCKET)
    with Load(tmp_path, str(kernel)) as load:
        for number in range(1, 4):
            take_over(load)
            assert load.driver.restarts == number, load.driver.console_log()
        load.finish()


@pytest.mark.timeout(300)
def test_a_guest_that_publishes_anything_harms_its_own_device_alone(tmp_path: Path) -> None:
    kernel = tmp_path / "liar.py"
    kernel.write_text(LIAR)
    with Load(tmp_path) as load:
        liar = DomainConfig("liar", str(kernel), devices=[disk(tmp_path, 1)], restart=FOREVER)
        load.progress()  # its own guest is served, too
        load.cluster.create(liar).wait_ready(DEADLINE_S)
        honest = mapped(load.cluster, load.driver) // 2
        for number in range(1, LIES + 1):
            take_over(load)
            assert load.driver.restarts == number
        wait_for(
            lambda: honest <= mapped(load.cluster, load.driver) <= 2 * honest, lambda: "what nobody has asked for gone"
        )
        load.finish()
