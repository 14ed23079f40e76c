"""The reference cluster, examples/cockpit: boots from its files, outlives its driver domain, resumes from disk."""

import errno
import json
import os
import re
import runpy
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.transport.messages import StoreRead

COCKPIT = Path(__file__).resolve().parents[2] / "examples" / "cockpit"
DEADLINE_S = 60.0
KILLS = 3  # the driver domain's restart limit is five in ten seconds
SECTOR = 512


@pytest.fixture
def cockpit(tmp_path):
    """A copy with new images, so that nobody else's cockpit is touched."""
    shutil.copytree(COCKPIT, tmp_path / "cockpit", ignore=shutil.ignore_patterns("*.img"))
    prepare = [sys.executable, "prepare.py"]
    subprocess.run(prepare, cwd=tmp_path / "cockpit", check=True, timeout=DEADLINE_S, stdout=subprocess.DEVNULL)
    return tmp_path / "cockpit"


class Console:
    """Somebody who reads a domain's terminal."""

    def __init__(self, cluster, name):
        tty = cluster.call(StoreRead(0, f"/local/domain/{cluster.domain(name).domid}/console/tty"))
        self._descriptor = os.open(tty.decode(), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        self._text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._descriptor)

    def find(self, pattern):
        """The first group of the next match; what stands before it is not looked at again."""
        until = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern, self._text)):
            assert time.monotonic() < until, f"{pattern!r} did not come; the last was {self._text[-500:]!r}"
            if select.select([self._descriptor], [], [], until - time.monotonic())[0]:
                self._text += os.read(self._descriptor, 65_536).decode()
        self._text = self._text[match.end() :]
        return match[1]

    def skip(self):
        """Leave out what has been printed so far."""
        try:
            while os.read(self._descriptor, 65_536):
                self._text = ""
        except OSError as error:
            assert error.errno == errno.EAGAIN
        self._text = ""


def frames_on(image):
    """The numbers of the whole frames of a telematics disk."""
    frame_number = runpy.run_path(str(COCKPIT / "telematics.py"))["frame_number"]
    data = image.read_bytes()
    return sorted(filter(None, (frame_number(data[at : at + SECTOR]) for at in range(0, len(data), SECTOR))))


def position_on(image):
    """Where playing goes on, by the disk of ivi: the title, and minutes and seconds."""
    ivi = runpy.run_path(str(COCKPIT / "ivi.py"))
    size = ivi["BLOCK_SECTORS"] * SECTOR
    position = json.loads(image.read_bytes()[size : 2 * size].rstrip(b"\0"))
    return f"{ivi['TITLES'][position['track']]!r} at 0:{int(position['chunk'] * ivi['PERIOD_S']):02d}"


def test_the_cockpit_goes_on_while_its_driver_domain_is_killed(cockpit, tmp_path):
    with Cluster.load(cockpit / "cockpit.toml", tmp_path / "run") as cluster:
        guests = [cluster.domain(name) for name in ("cluster", "ivi", "telematics")]
        with (
            Console(cluster, "cluster") as dash,
            Console(cluster, "ivi") as music,
            Console(cluster, "telematics") as log,
        ):
            safe = int(log.find(r"frame (\d+) is safe"))
            for number in range(1, KILLS + 1):
                cluster.domain("storage").kill()
                cluster.domain("storage").wait_ready()
                assert cluster.domain("storage").incarnation == 1 + number
                for _ in range(2):  # the first may have been written before the kill
                    safe += 10
                    assert int(log.find(r"frame (\d+) is safe")) == safe
                music.skip()
                assert music.find(r"playing '(.+)' at .*, intact")
                dash.skip()
                assert dash.find(r"([\d.]+) km/h")
        assert [(each.incarnation, each.last_death) for each in guests] == [(1, "")] * 3
    told = re.search(r"told to stop, (\d+) frames are safe", (tmp_path / "run" / "log" / "telematics.log").read_text())
    assert told is not None
    safe, found = int(told[1]), frames_on(cockpit / "telematics.img")
    assert found == list(range(1, len(found) + 1))
    assert safe <= len(found) <= safe + 1  # it may be told to stop between a frame's write and counting it


@contextmanager
def switched_on(cockpit):
    """The consoles of telematics and ivi."""
    with (
        Cluster.load(cockpit / "cockpit.toml") as cluster,
        Console(cluster, "telematics") as log,
        Console(cluster, "ivi") as music,
    ):
        yield log, music


def test_the_cockpit_resumes_where_it_was_switched_off(cockpit):
    with switched_on(cockpit) as (log, music):
        assert music.find(r"(\d+) tracks installed") == "6"
        music.find(r"playing .* at 0:(02)")
        log.find(r"frame (10) is safe")
    last, position = frames_on(cockpit / "telematics.img")[-1], position_on(cockpit / "ivi.img")
    with switched_on(cockpit) as (log, music):
        assert music.find(r"(\d+) tracks found") == "6"
        assert music.find(r"playing (.* at \d+:\d+), intact") == position
        assert int(log.find(r"(\d+) frames found")) == last


def test_images_that_are_there_are_kept_unless_it_is_said_otherwise(cockpit):
    image = cockpit / "ivi.img"
    image.write_bytes(b"music")
    prepare = [sys.executable, str(cockpit / "prepare.py")]
    assert (
        "there already"
        in subprocess.run(prepare, check=True, timeout=DEADLINE_S, capture_output=True, text=True).stdout
    )
    assert image.read_bytes() == b"music"
    subprocess.run([*prepare, "--again"], check=True, timeout=DEADLINE_S, stdout=subprocess.DEVNULL)
    assert image.stat().st_size == 16 << 20 and not any(image.read_bytes())
