"""`hvd top` and its lists over a cluster whose guest reads its disk: counts that are right, in every form."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster
from hvd.toolstack.monitor.sample import take_sample
from hvd.toolstack.monitor.watcher import Watcher
from hvd.toolstack.trace.session import TraceSession
from tests.waiting import wait_for_consoles

DEADLINE_S = 60.0
READER = """
def main(guest):
    disk = guest.disk()
    while True:
        for sector in range(100):
            disk.read(sector, 8)
        guest.sleep(0.002)
"""


@pytest.fixture
def cluster(tmp_path: Path):
    (tmp_path / "guest.py").write_text(READER)
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    (tmp_path / "c.toml").write_text(
        '[[domain]]\nname = "driver"\nkernel = "hvd:driver_domain"\ndriver_domain = true\n'
        '[[domain]]\nname = "guest"\nkernel = "guest.py"\ndisk = ["vdev=xvda,backend=driver,target=a.img"]\n'
    )
    with Cluster.load(tmp_path / "c.toml", run_dir=tmp_path / "run") as running:
        running.wait_ready()
        wait_for_consoles(running)
        yield running


@pytest.fixture
def hvd(cluster: Cluster) -> Callable[..., str]:
    def run(*words: str) -> str:
        environment = {"HVD_RUN_DIR": str(cluster.run_dir), "PATH": "/bin:/usr/bin", "TERM": "xterm"}
        command = [sys.executable, "-m", "hvd", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout

    return run


def test_a_look_counts_requests_and_knows_who_asked_whom(cluster):
    watcher, until = Watcher(cluster), time.monotonic() + DEADLINE_S
    while not ((seen := watcher.look(0.3)).devices and seen.devices[0].requests_per_s):
        assert time.monotonic() < until, seen  # whoever asks may have had no CPU meanwhile
    (device,) = seen.devices
    assert (device.device, device.domain, device.backend, device.slots) == ("xvda", "guest", "driver", 32)
    assert device.requests_per_s is not None and device.requests_per_s > 0
    assert [domain.name for domain in seen.domains] == ["Domain-0", "driver", "guest"]


def test_while_somebody_else_traces_nothing_is_taken_from_him(cluster):
    session = TraceSession(cluster.connection, [])
    session.start()
    assert take_sample(cluster, 0.01) is None
    assert not session.ended
    recording = session.stop()
    assert not recording.ended_early
    until = time.monotonic() + DEADLINE_S
    while not ((sample := take_sample(cluster, 0.2)) is not None and (sample.latencies_us or sample.notified)):
        assert sample is not None
        assert time.monotonic() < until, sample


def test_batches_are_tables_lines_or_objects(hvd):
    text = hvd("top", "--batch", "-i", "2", "-d", "0.1")
    assert text.count("Name") == 2
    assert {"Domain-0", "driver", "guest", "xvda"} <= {line.split()[0] for line in text.splitlines() if line}
    (seen,) = map(json.loads, hvd("top", "--json", "-i", "1", "-d", "0.1").splitlines())
    assert (seen["schema"], [device["device"] for device in seen["devices"]]) == (2, ["xvda"])
    rows = list(csv.DictReader(io.StringIO(hvd("top", "--csv", "-i", "1", "-d", "0.1"))))
    assert {row["kind"] for row in rows} >= {"domain", "device"}
    assert {row["name"] for row in rows if row["measure"] == "requests_per_s"} == {"guest/xvda"}


def test_lists_say_what_is_between_whom(hvd):
    ports = json.loads(hvd("evtchn", "guest", "-d", "0.2", "--json"))
    assert {row["remote_domid"] for row in ports if row["status"] == "interdomain"} == {0, 1}
    assert {row["sent_per_s"] for row in json.loads(hvd("evtchn", "-d", "0", "--json"))} == {None}
    assert "driver:" in hvd("evtchn", "guest")
    shared = [row for row in json.loads(hvd("grants", "guest", "--json")) if row["peer"] == 1]
    assert all(mapper == 1 for row in shared for mapper, _, _ in row["mapped"])
    assert {row["maps_per_s"] for row in shared} == {0.0} and all(row["maps"] >= 1 for row in shared if row["mapped"])
    assert {row["maps_per_s"] for row in json.loads(hvd("grants", "-d", "0", "--json"))} == {None}
    assert "driver" in hvd("grants", "guest")
    (device,) = json.loads(hvd("ring", "guest", "--json"))
    assert device["slots"] == 32
    assert "xvda" in hvd("ring")


def test_the_screen_ends_after_so_many_looks(cluster):
    from hvd.toolstack.cli.top_screen import TopScreen

    async def drive() -> None:
        screen = TopScreen(cluster, 0.05, 2)
        async with screen.run_test() as pilot:
            while screen.is_running:
                await pilot.pause(0.02)

    asyncio.run(drive())


def test_the_screen_shows_it_all_and_answers_keys(cluster):
    from hvd.toolstack.cli.top_screen import TopScreen

    async def drive() -> None:
        screen = TopScreen(cluster, 0.1)
        async with screen.run_test() as pilot:
            while screen.seen is None:
                await pilot.pause(0.02)
            await pilot.press("s")
            assert "sorted by Name" in screen.sub_title
            await pilot.press("c")
            assert screen.query_one("#channels").row_count >= 4  # type: ignore[attr-defined]
            assert screen.query_one("#domains").row_count == 3  # type: ignore[attr-defined]
            await pilot.press("S")
            assert "sorted by ID" in screen.sub_title
            await pilot.press("q")

    asyncio.run(drive())


@pytest.mark.parametrize("key", ["q", "Q", "escape", "ctrl+c"])
def test_the_screen_ends_with_each_of_xentops_keys(cluster, key):
    from hvd.toolstack.cli.top_screen import TopScreen

    async def drive() -> None:
        screen = TopScreen(cluster, 0.05)
        async with screen.run_test() as pilot:
            await pilot.press(key)
            while screen.is_running:
                await pilot.pause(0.02)

    asyncio.run(asyncio.wait_for(drive(), 60))
