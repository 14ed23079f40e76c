"""Disks that come and go while their domain runs: used when they are there, refused while in use, and nothing left."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from hvd.toolstack.cluster import Cluster, DeviceInUse, DeviceRefused, NotReached
from hvd.toolstack.config.disks import read_disk
from hvd.toolstack.config.problems import Report
from hvd.transport import messages as m
from tests.waiting import DEADLINE_S, wait_for

ENOUGH_S = 5.0
"""For whoever does answer to have done so, on a busy machine too: what is left then is who does not."""

USER = '''
def main(guest):
    disks = {}
    def changed(disk, here):
        if here:
            disks[disk.name] = disk
            disk.write(7, b"x" * 512)
            disk.flush()
            print("came", disk.name, disk.read(7, 1)[:1])
        else:
            try:
                disk.read(0, 1)
            except OSError as error:
                print("went", disk.name, error.errno)
    guest.on_device(changed)
    guest.run_forever()
'''
HOLDER = '''
def main(guest):
    here = []
    guest.on_device(lambda disk, came: here.append(disk) if came else here.clear())
    while not here:
        guest.wait()
    with here[0].held():
        print("holding", flush=True)
        while here:
            guest.wait()
    print("went", flush=True)
    guest.run_forever()
'''
KEEPER = '''
def main(guest):
    here = []
    guest.on_device(lambda disk, came: here.append(disk))
    while not here:
        guest.wait()
    with here[0].held():
        print("holding", flush=True)
        guest.run_forever()
'''
READER = '''
def main(guest):
    here = []
    guest.on_device(lambda disk, came: here.append(disk) if came else None)
    while not here:
        guest.wait()
    print("reading", flush=True)
    try:
        while True:
            here[0].read(0, 8)
            guest.sleep(0)
    except OSError as error:
        print("ended", error.errno, flush=True)
    guest.run_forever()
'''
LISTER = '''
def main(guest):
    while True:
        guest.wait()
        print(sorted(guest.disks()), len(guest.devices()), flush=True)
'''


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest):
    """Of domains that nobody takes for hung, however long they are stopped."""
    (tmp_path / "guest.py").write_text(request.param)
    for image in ("b.img", "c.img"):
        (tmp_path / image).write_bytes(bytes(1 << 20))
    (tmp_path / "c.toml").write_text(
        '[[domain]]\nname = "driver"\nkernel = "hvd:driver_domain"\ndriver_domain = true\nheartbeat_ms = 0\n'
        '[[domain]]\nname = "guest"\nkernel = "guest.py"\nafter = ["driver"]\nheartbeat_ms = 0\n'
    )
    with Cluster.load(tmp_path / "c.toml", run_dir=tmp_path / "run") as running:
        running.wait_ready()
        yield running


def disk(tmp_path: Path, vdev: str = "xvdb", backend: str = "driver", target: str = "b.img"):
    report = Report("test", "")
    found = read_disk(report, (), f"vdev={vdev},backend={backend},target={target}", tmp_path)
    report.raise_if_wrong()
    assert found is not None
    return found.config


def said(cluster: Cluster, text: str, times: int = 1) -> None:
    """Wait until the guest has written this so often: domain 0 writes its log, which nobody announces."""
    guest, until = cluster.domain("guest"), time.monotonic() + 30
    while guest.console_log().count(text) < times:
        assert time.monotonic() < until, f"{text!r} is not {times} times in {guest.console_log()!r}"
        time.sleep(0.005)


def counts(cluster: Cluster) -> dict[str, int]:
    facts = cluster.info()
    return {name: facts[name] for name in ("ports", "granted_pages", "mappings", "extents", "descriptors")}


def at_rest(cluster: Cluster) -> dict[str, int]:
    """What there is when domain 0 has attached to every console."""
    until = time.monotonic() + 30
    while (found := counts(cluster))["ports"] < 3 * len(cluster.infos()):  # upcalls, and both ends of each console
        assert time.monotonic() < until, found
        time.sleep(0.005)
    return found


def wait_counts(cluster: Cluster, expected: dict[str, int]) -> None:
    """Until everything has been given back: a backend does so when it hears that its device has gone."""
    until = time.monotonic() + 30
    while counts(cluster) != expected:
        assert time.monotonic() < until, f"{counts(cluster)} in place of {expected}"
        time.sleep(0.005)


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_is_used_and_taken_away_again_and_again_and_leaves_nothing(cluster, tmp_path):
    guest, before = cluster.domain("guest"), at_rest(cluster)
    for turn in (1, 2, 3):
        guest.attach(disk(tmp_path))
        said(cluster, "came xvdb b'x'", turn)
        guest.detach("vbd", 51728)
        said(cluster, f"went xvdb {errno.ENODEV}", turn)
    assert (tmp_path / "b.img").read_bytes()[7 * 512] == ord("x")
    wait_counts(cluster, before)


@pytest.mark.parametrize("cluster", [HOLDER], indirect=True)
def test_a_disk_that_is_held_is_refused_and_taken_by_force(cluster, tmp_path):
    guest, before = cluster.domain("guest"), at_rest(cluster)
    guest.attach(disk(tmp_path))
    said(cluster, "holding")
    with pytest.raises(DeviceInUse, match="holds disk xvdb"):
        guest.detach("vbd", 51728)
    assert [device["devid"] for device in guest.info().devices] == [51728]
    guest.detach("vbd", 51728, force=True)
    said(cluster, "went")
    assert not guest.info().devices
    wait_counts(cluster, before)  # the backend, which was not asked either, hears of it by itself


@pytest.mark.parametrize("cluster", [READER], indirect=True)
def test_what_is_asked_of_a_disk_that_was_taken_by_force_fails(cluster, tmp_path):
    guest = cluster.domain("guest")
    guest.attach(disk(tmp_path))
    said(cluster, "reading")
    guest.detach("vbd", 51728, force=True)
    said(cluster, "ended")


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_is_taken_away_although_its_driver_domain_is_dead_or_stopped(cluster, tmp_path):
    guest, driver = cluster.domain("guest"), cluster.domain("driver")
    guest.attach(disk(tmp_path))
    said(cluster, "came")
    driver.kill(19)
    with pytest.raises(NotReached, match="has not let go of vbd 51728: it has begun to"):
        guest.detach("vbd", 51728, deadline_s=ENOUGH_S)
    driver.kill(9)
    guest.wait_until(lambda info: not info.devices, "without its disk")
    driver.wait_ready()
    said(cluster, "went")


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_guest_that_is_killed_while_it_is_asked_comes_back_without_the_disk(cluster, tmp_path):
    guest = cluster.domain("guest")
    guest.attach(disk(tmp_path))
    said(cluster, "came")
    guest.kill(19)
    cluster.call(m.DomctlDetach(guest.domid, "vbd", 51728))
    guest.kill(9)
    guest.wait_ready()
    assert not guest.info().devices


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_stays_through_restarts_of_its_guest_and_of_the_broker(cluster, tmp_path):
    guest = cluster.domain("guest")
    guest.attach(disk(tmp_path))
    said(cluster, "came")
    guest.kill()
    guest.wait_ready()
    os.kill(cluster.info()["broker_pid"], 9)
    assert [device["devid"] for device in guest.info().devices] == [51728]
    guest.detach("vbd", 51728)
    assert not guest.info().devices


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_that_was_taken_by_force_and_plugged_in_again_before_its_guest_looked_is_used(cluster, tmp_path):
    guest, before = cluster.domain("guest"), at_rest(cluster)
    guest.attach(disk(tmp_path))
    said(cluster, "came")
    guest.kill(19)
    guest.detach("vbd", 51728, force=True)
    assert guest.attach(disk(tmp_path), ENOUGH_S) == f"guest, which has not gone on with it for {ENOUGH_S:g} s"
    guest.kill(18)
    said(cluster, "went")
    said(cluster, "came", 2)
    guest.detach("vbd", 51728)
    wait_counts(cluster, before)


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_whose_image_is_written_already_is_refused_and_nothing_of_it_stays(cluster, tmp_path):
    guest, other = cluster.domain("guest"), cluster.create(m.DomainConfig("other", "hvd:idle"))
    other.wait_ready()
    guest.attach(disk(tmp_path))
    said(cluster, "came")
    before = counts(cluster)
    with pytest.raises(DeviceRefused, match=r"image .*b\.img is written by another device"):
        other.attach(disk(tmp_path))
    assert not other.info().devices
    backend = f"/local/domain/{cluster.domain('driver').domid}/backend/vbd/{other.domid}"
    paths = f"/local/domain/{other.domid}/device/vbd", backend
    wait_for(lambda: not any(cluster.call(m.StoreDirectory(0, path)) for path in paths))  # what was said too late goes
    wait_counts(cluster, before)
    other.reboot()
    other.wait_ready()


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_of_a_domain_that_is_paused_waits_for_it_and_a_refusal_does_not(cluster, tmp_path):
    guest = cluster.domain("guest")
    guest.pause()
    assert guest.attach(disk(tmp_path)) == "guest, which is paused"
    with pytest.raises(DeviceRefused, match="is written by another device"):
        guest.attach(disk(tmp_path, "xvdc"))
    guest.unpause()
    said(cluster, "came xvdb")
    assert [device["devid"] for device in guest.info().devices] == [51728]


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_a_disk_waits_for_a_driver_domain_that_is_paused(cluster, tmp_path):
    guest, driver = cluster.domain("guest"), cluster.domain("driver")
    driver.pause()
    assert guest.attach(disk(tmp_path)) == "driver, which is paused"
    driver.unpause()
    said(cluster, "came xvdb")


@pytest.mark.parametrize("cluster", [LISTER], indirect=True)
def test_a_disk_is_among_the_disks_when_it_has_connected(cluster, tmp_path):
    """Before, nothing is known of it: not its name, and no sector that could be asked for."""
    cluster.domain("driver").pause()
    cluster.domain("guest").attach(disk(tmp_path))
    said(cluster, "[] 1")
    assert "'" not in cluster.domain("guest").console_log()
    cluster.domain("driver").unpause()
    said(cluster, "['xvdb'] 1")


@pytest.mark.parametrize("cluster", [USER], indirect=True)
def test_what_was_asked_in_vain_is_taken_back_and_the_disk_is_used_again(cluster, tmp_path):
    guest = cluster.domain("guest")
    guest.attach(disk(tmp_path))
    said(cluster, "came")
    ways = (guest.pause, guest.unpause), (lambda: guest.kill(19), lambda: guest.kill(18))
    for turn, (stop, go_on) in enumerate(ways, 1):
        stop()
        wait_for(lambda: psutil.Process(guest.pid).status() == psutil.STATUS_STOPPED)
        with pytest.raises(NotReached, match="has not let go of vbd 51728, nor said why, and keeps it; with `--force`"):
            guest.detach("vbd", 51728, deadline_s=0.3)
        go_on()
        guest.attach(disk(tmp_path, "xvdc", target="c.img"))  # heard behind what was asked
        said(cluster, "came xvdc", turn)
        guest.detach("vbd", 51744)
    assert "went xvdb" not in guest.console_log()
    assert [device["devid"] for device in guest.info().devices] == [51728]
    guest.detach("vbd", 51728)
    said(cluster, "went xvdb")


@pytest.mark.parametrize("cluster", [KEEPER], indirect=True)
def test_another_device_whose_number_begins_as_its_own_is_no_answer(cluster, tmp_path):
    guest, driver = cluster.domain("guest"), cluster.domain("driver")
    guest.attach(disk(tmp_path, "5171"))
    said(cluster, "holding")
    guest.attach(disk(tmp_path, "51712", target="c.img"))
    guest.pause()
    with ThreadPoolExecutor(1) as other, Cluster.attach(cluster.run_dir) as theirs:
        asked = other.submit(theirs.domain("guest").detach, "vbd", 5171, deadline_s=DEADLINE_S)
        online = f"/local/domain/{driver.domid}/backend/vbd/{guest.domid}/5171/online"
        wait_for(lambda: cluster.call(m.StoreRead(0, online)) == b"0")
        guest.detach("vbd", 51712, force=True)
        guest.unpause()  # its own answer is another one, and comes later
        with pytest.raises(DeviceInUse, match="keeps vbd 5171: "):
            asked.result()
    assert guest.has_device("vbd", 5171)
