"""mem-set and mem-max on domains that run: what they give back, what they keep, and what the kernel holds them to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.toolstack.faults.processes import Watched
from hvd.transport.cgroups import hierarchies
from hvd.transport.hypercalls import HypercallError
from hvd.transport.sandbox import RESERVED_KIB
from tests.waiting import wait_for as wait_until

KERNELS = Path(__file__).with_name("kernels")
MIB = 1024


@pytest.fixture
def cluster(tmp_path: Path):
    (tmp_path / "c.toml").write_text(
        f'[[domain]]\nname = "guest"\nkernel = "{KERNELS / "hoards.py"}"\nargs = ["20", "60"]\n'
        'memory = 128\nmaxmem = 192\non_crash = "restart"\n'
    )
    with Cluster.load(tmp_path / "c.toml", run_dir=tmp_path / "run") as running:
        running.wait_ready()
        yield running


def wait_for(events, guest, kind: str):
    """The next event of this kind about the guest."""
    until = time.monotonic() + 30
    while (event := events.next_until(until)) is not None:
        if (event.event, event.domid) == (kind, guest.domid):
            return event
    raise AssertionError(f"no {kind!r} within 30 s")


def limit_kib(guest) -> int:
    """How far its soft limit lies below what it was built with; 192 MiB when it is what it was built with."""
    limits = Path(f"/proc/{guest.pid}/limits").read_text()
    soft, hard = (int(word) for word in limits.partition("Max data size")[2].split()[:2])
    return 192 * MIB - (hard - soft) // 1024


def group_kib(guest) -> int | None:
    """What its memory group is bound to, the reserve left out; None where it has none of its own."""
    own, mounts = Path(f"/proc/{guest.pid}/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    for each in hierarchies(own, mounts, lambda path: Path(path).read_text() if Path(path).exists() else ""):
        name = "memory.limit_in_bytes" if each.version == 1 else "memory.max"
        bound = Path(each.directory) / name
        if "memory" in each.controllers and each.directory.endswith(f"/{guest.pid}") and bound.exists():
            return int(bound.read_text()) // 1024 - RESERVED_KIB
    return None


def assert_held_to(guest, kib: int) -> None:
    until = time.monotonic() + 30
    while limit_kib(guest) != kib or group_kib(guest) not in (None, kib):
        assert time.monotonic() < until, (limit_kib(guest), group_kib(guest), kib)
        time.sleep(0.005)


def test_a_guest_gives_back_what_it_can_spare_and_is_held_to_that(cluster):
    guest = cluster.domain("guest")
    assert_held_to(guest, 128 * MIB)
    with cluster.events() as events:
        guest.mem_set(80 * MIB)
        assert wait_for(events, guest, "memory").detail == f"{80 * MIB} KiB"
    assert guest.info().memory == 80
    assert_held_to(guest, 80 * MIB)
    status = Path(f"/proc/{guest.pid}/status").read_text()
    anonymous = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    assert anonymous < 80 * MIB


def test_a_guest_that_cannot_go_so_low_stays_above_and_says_so(cluster):
    guest = cluster.domain("guest")
    with cluster.events() as events:
        guest.mem_set(10 * MIB)
        said = wait_for(events, guest, "memory").detail
    reached = int(said.split()[0])
    assert 20 * MIB < reached < 80 * MIB
    assert said == f"{reached} KiB, above its target of {10 * MIB} KiB"
    assert_held_to(guest, reached)
    until = time.monotonic() + 30
    while f"balloon: {reached} KiB are in use, {10 * MIB} KiB are the target" not in guest.console_log():
        assert time.monotonic() < until, guest.console_log()
        time.sleep(0.005)


def test_a_guest_is_given_more_at_once_but_no_more_than_it_was_built_with(cluster):
    guest = cluster.domain("guest")
    with cluster.events() as events:
        guest.mem_set(192 * MIB)
        wait_for(events, guest, "memory")
    assert_held_to(guest, 192 * MIB)
    with pytest.raises(HypercallError, match="memory_static_max"):
        guest.mem_set(193 * MIB)
    assert guest.info().memory == 192


def test_a_target_outlives_a_restart_and_the_broker(cluster):
    guest = cluster.domain("guest")
    with cluster.events() as events:
        guest.mem_set(80 * MIB)
        wait_for(events, guest, "memory")
    os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
    guest.wait_until(lambda info: info.memory_target_kib == 80 * MIB, "to be asked for as before")
    assert_held_to(guest, 80 * MIB)
    guest.kill()
    guest.wait_ready()
    assert_held_to(guest, 80 * MIB)
    assert guest.info().memory == 80


def test_a_maximum_holds_and_is_what_it_was_again_after_a_restart(cluster):
    guest = cluster.domain("guest")
    guest.mem_max(150 * MIB)
    assert_held_to(guest, 150 * MIB)
    guest.kill()
    guest.wait_ready()
    assert_held_to(guest, 128 * MIB)


def test_a_paused_guest_hears_of_it_when_it_goes_on(cluster):
    guest = cluster.domain("guest")
    process = Watched(guest.pid)
    try:
        guest.pause()
        wait_until(lambda: process.state() == "T", "it to stand still: the signal comes by the machine")
    finally:
        process.close()
    assert guest.state is DomainState.PAUSED
    with cluster.events() as events:
        guest.mem_set(80 * MIB)
        assert guest.info().memory == 128
        guest.unpause()
        wait_for(events, guest, "memory")
    assert guest.info().memory == 80


def hvd(cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hvd", *arguments], env={"HVD_RUN_DIR": str(cluster.run_dir), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_commands_print_and_end_as_those_of_xl_do(cluster):
    done = hvd(cluster, "mem-set", "guest", "80m")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = hvd(cluster, "mem-max", "guest", "1t", "--json")
    assert (done.returncode, json.loads(done.stdout)["memory_max_kib"]) == (0, 1 << 30)
    for arguments, said in (
        (("mem-set", "guest", "12q"), "invalid memory size: '12q'"),
        (("mem-max", "guest", "lots"), "invalid memory size: 'lots'"),
        (("mem-set", "guest", "1g"), "memory_dynamic_max (1048576 KiB) must be less than or equal to"),
        (("mem-max", "guest", "1"), "memory_static_max (1024 KiB) must be greater than or equal to"),
        (("mem-set", "nobody", "64"), "nobody"),
    ):
        failed = hvd(cluster, *arguments)
        assert (failed.returncode, failed.stdout) == (1, ""), failed
        assert said in failed.stderr
