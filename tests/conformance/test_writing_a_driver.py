"""docs/writing-a-driver.md: its files are the example's, and what it says of them is what happens."""

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cli.console import terminal_path
from hvd.toolstack.cluster import DomainState, StartFailed
from hvd.toolstack.conformance import test_device as suite
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "writing-a-driver.md").read_text()
EXAMPLE = ROOT / "examples" / "drivers" / "thermometer"
DEADLINE_S = 60.0


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def cluster_file(thermometer, tmp_path):
    """The example's cluster file, with this test's sensor."""
    (tmp_path / "dashboard.py").write_bytes((EXAMPLE / "dashboard.py").read_bytes())
    file = tmp_path / "thermometer.toml"
    file.write_text((EXAMPLE / "thermometer.toml").read_text().replace("/tmp/temperature", str(thermometer)))
    return file


class Screen:
    """What a guest prints, as it comes."""

    def __init__(self, cluster, name):
        self._terminal = os.open(terminal_path(cluster, cluster.domain(name)), os.O_RDONLY | os.O_NOCTTY)
        self._seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._terminal)

    def wait_for(self, text):
        until = time.monotonic() + DEADLINE_S
        while text.encode() not in self._seen:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} did not come; the last was {self._seen[-200:]!r}"
            if select.select([self._terminal], [], [], left)[0]:
                self._seen += os.read(self._terminal, 4096)
        self._seen = self._seen.partition(text.encode())[2]


def measure(sensor, millidegrees):
    """In one step, since the guest may be looking, and in the file that its driver domain was given."""
    with sensor.open("r+b", buffering=0) as file:
        file.write(b"%5d\n" % millidegrees)


def test_the_page_shows_the_files_of_the_example():
    shown = [*blocks("python"), *blocks("toml")]
    for name in ("hvd_thermometer.py", "pyproject.toml", "dashboard.py", "thermometer.toml"):
        assert (EXAMPLE / name).read_text() in shown, name


def test_the_page_lists_the_tests_of_the_suite():
    listed = re.findall(r"^test_device\.py::(\w+) PASSED", PAGE, re.MULTILINE)
    assert listed == [name for name in vars(suite) if name.startswith("test_")]


def test_the_guest_outlives_its_driver_domain_and_the_highest_begins_again(cluster_file, thermometer):
    with Cluster.load(cluster_file) as cluster, Screen(cluster, "dashboard") as screen:
        screen.wait_for("48.5 °C, at most 48.5 °C")
        measure(thermometer, 51250)
        screen.wait_for("51.2 °C, at most 51.2 °C")
        measure(thermometer, 47000)
        screen.wait_for("47.0 °C, at most 51.2 °C")
        cluster.domain("sensors").kill()
        cluster.domain("sensors").wait_ready()
        screen.wait_for("47.0 °C, at most 47.0 °C")
        assert cluster.domain("dashboard").incarnation == 1


def test_a_sensor_that_is_not_there_closes_the_device_and_is_named(thermometer):
    once = RestartPolicy(limit=1, delay_ms=1)
    devices = [DeviceConfig("thermometer", 0, "sensors", {"sensor": "/nowhere/temperature"})]
    domains = [
        DomainConfig("sensors", "hvd:driver_domain", driver_domain=True),
        DomainConfig("dashboard", str(EXAMPLE / "dashboard.py"), devices=devices, restart=once),
    ]
    with pytest.raises(StartFailed) as caught:
        Cluster.build(domains).start()
    assert "thermometer 0 of domain 2: [Errno 2] No such file or directory: '/nowhere/temperature'" in str(caught.value)


def test_a_sensor_that_cannot_be_read_is_an_answer_and_ends_no_driver_domain(thermometer, tmp_path):
    kernel = tmp_path / "asker.py"
    kernel.write_text("def main(guest):\n    guest.device('thermometer').now()\n")
    devices = [DeviceConfig("thermometer", 0, "sensors", {"sensor": str(thermometer)})]
    domains = [
        DomainConfig("sensors", "hvd:driver_domain", driver_domain=True, paths=[str(thermometer)]),
        DomainConfig("asker", str(kernel), devices=devices, on_poweroff="preserve", on_crash="preserve"),
    ]
    with Cluster.build([domains[0]]) as cluster:
        asker = cluster.create(domains[1])
        assert asker.wait_state(DomainState.PRESERVED).last_death == "poweroff"
        thermometer.write_text("hot")
        asker.reboot()
        ended = asker.wait_until(lambda info: info.incarnation == 2 and info.state == DomainState.PRESERVED, "to end")
        assert "the sensor cannot be read" in ended.last_death
        assert cluster.domain("sensors").incarnation == 1


def test_the_suite_runs_from_an_authors_own_test_module(thermometer, tmp_path):
    (own,) = [block for block in blocks("python") if "device_under_test" in block]
    (tmp_path / "test_own.py").write_text(own)
    name = "test_both_ends_connect_and_traffic_flows"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_own.py", "-k", name],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert "1 passed" in result.stdout, result.stdout + result.stderr
