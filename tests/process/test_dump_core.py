"""hvd dump-core on real domains: what the core holds, that its domain goes on, and what is left when somebody dies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.toolstack.cluster.errors import CoreDumpFailed
from hvd.toolstack.faults.processes import Watched
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0
from hvd.transport.messages import DomainConfig
from tests.progress import without_progress
from tests.waiting import wait_for

COUNTS = """
import ctypes
known = ctypes.c_uint64(0x1122334455667788)

def main(guest):
    secret = "-".join(["marker", "of", "life", str(guest.incarnation)])
    guest.write_console(f"known {ctypes.addressof(known):x}\\n")
    count = 0
    while True:
        count += 1
        guest.write_console(f"count {count}\\n")
        guest.sleep(0.01)
"""
TRIES = 20
HELD = """
AUTO_READY = False

def main(guest):
    '''So large that its dumper is met at work.'''
    held = bytearray(b"x") * (160 << 20)
    guest.ready()
    guest.run_forever()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_domain_is_left_for_the_next_test(cluster: Cluster) -> Iterator[None]:
    yield
    for info in cluster.infos().values():
        if info.domid != DOM0:
            cluster.domain(info.name).destroy()


def traceable(name: str, kernel: Path, **fields: object) -> DomainConfig:
    """Where the machine is not root's, only such a one lets itself be traced."""
    return DomainConfig(name, str(kernel), on_crash="coredump-destroy", **fields)  # type: ignore[arg-type]


@pytest.fixture
def guest(cluster: Cluster, tmp_path: Path) -> Domain:
    (tmp_path / "counts.py").write_text(COUNTS)
    domain = cluster.create(traceable("guest", tmp_path / "counts.py"))
    domain.wait_ready()
    return domain


def counted(domain: Domain) -> int:
    """What it has come to; the end of a line may still be on its way."""
    counts = re.findall(r"^count (\d+)\n", domain.console_log(), re.MULTILINE)
    return int(counts[-1]) if counts else 0


def known_address(domain: Domain) -> int:
    return int(domain.console_log().rpartition("known ")[2].split()[0], 16)


def wait_counting(domain: Domain) -> None:
    before = counted(domain)
    while counted(domain) <= before:
        assert domain.state is DomainState.RUNNING


def hvd(cluster: Cluster, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hvd", *words], env={"HVD_RUN_DIR": str(cluster.run_dir), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False, cwd=cwd,
    )  # fmt: skip


def test_a_core_is_written_and_its_domain_goes_on(cluster, guest, tmp_path, read_core):
    wait_counting(guest)
    before = guest.info()
    done = hvd(cluster, "dump-core", "guest", "guest.core", cwd=tmp_path)
    assert (done.returncode, done.stdout, without_progress(done.stderr)) == (0, "", "")
    core = read_core(tmp_path / "guest.core")
    known = known_address(guest)
    assert core.memory(known, 8) == bytes.fromhex("8877665544332211")
    assert core.holds(b"marker-of-life-1")
    assert len(core.threads()) >= 2
    wait_counting(guest)
    after = guest.info()
    assert (before.pid, before.incarnation) == (after.pid, after.incarnation)
    assert sorted(each.name for each in tmp_path.iterdir() if "core" in each.name) == ["guest.core"]


@pytest.mark.skipif(which("gdb") is None, reason="no gdb")
def test_gdb_opens_it(cluster, guest, tmp_path):
    wait_counting(guest)
    guest.dump_core(tmp_path / "guest.core")
    known = known_address(guest)
    asked = ["-ex", f"x/1xg {known}", "-ex", "info threads", "-ex", "bt 3"]
    run = subprocess.run(["gdb", "-nx", "-batch", *asked, sys.executable, tmp_path / "guest.core"], text=True,
                         capture_output=True, check=True, env=os.environ | {"DEBUGINFOD_URLS": ""})  # fmt: skip
    assert "0x1122334455667788" in run.stdout
    assert "* 1 " in run.stdout
    assert "#0 " in run.stdout


def test_a_file_that_is_there_is_replaced_when_the_core_is_whole(cluster, guest, tmp_path):
    (tmp_path / "guest.core").write_bytes(b"old")
    done = hvd(cluster, "dump-core", "guest", str(tmp_path / "guest.core"), "--json")
    assert json.loads(done.stdout) == {
        "done": "core dumped", "domid": guest.domid, "name": "guest", "file": str(tmp_path / "guest.core"),
    }  # fmt: skip
    assert (tmp_path / "guest.core").read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("missing/guest.core", "No such file or directory"),
        ("directory", "is no regular file"),
        ("x" * 256, "File name too long"),
        ("file/guest.core", "Not a directory"),
    ],
)
def test_a_place_where_no_core_can_be_is_said_and_the_domain_goes_on(cluster, guest, tmp_path, place, why):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    done = hvd(cluster, "dump-core", "guest", str(tmp_path / place))
    assert (done.returncode, done.stdout) == (1, "")
    error = without_progress(done.stderr)
    assert error.startswith(f"hvd: core dump of guest to {tmp_path / place} failed: ")
    assert why in error
    wait_counting(guest)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small filesystem needs root")
def test_a_full_disk_is_said_and_nothing_is_left_there(cluster, guest, tmp_path):
    (tmp_path / "small").mkdir()
    small = tmp_path / "small"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "hvd-test", small], check=False)
    if mounted.returncode:
        pytest.skip("this container forbids mounting")
    try:
        (small / "guest.core").write_bytes(b"old")
        with pytest.raises(CoreDumpFailed, match="No space left on device"):
            guest.dump_core(small / "guest.core")
        assert (small / "guest.core").read_bytes() == b"old"
        assert [each.name for each in small.iterdir()] == ["guest.core"]
    finally:
        subprocess.run(["umount", small], check=True)
    wait_counting(guest)


def test_a_paused_domain_stays_paused(cluster, guest, tmp_path):
    guest.pause()
    guest.dump_core(tmp_path / "guest.core")
    assert guest.state is DomainState.PAUSED
    guest.unpause()
    wait_counting(guest)


def test_a_driver_domains_core_has_none_of_the_pages_that_its_guests_granted(cluster, tmp_path, read_core):
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    (tmp_path / "user.py").write_text(
        "def main(guest):\n    guest.disk().write(0, b'x' * 4096)\n"
        "    guest.write_console('written\\n')\n    guest.run_forever()\n"
    )
    (tmp_path / "c.toml").write_text(
        '[[domain]]\nname = "driver"\nkernel = "hvd:driver_domain"\ndriver_domain = true\n'
        'on_crash = "coredump-restart"\n'
        '[[domain]]\nname = "user"\nkernel = "user.py"\non_crash = "coredump-restart"\n'
        'disk = ["vdev=xvda,backend=driver,target=disk.img"]\n'
    )
    with Cluster.load(tmp_path / "c.toml", run_dir=tmp_path / "run") as running:
        running.wait_ready()
        driver, user = running.domain("driver"), running.domain("user")
        while "written" not in user.console_log():
            assert user.state is DomainState.RUNNING
        mapped = Path(f"/proc/{driver.pid}/maps").read_text()
        assert f"hvd-extent-{user.domid} " in mapped
        for domain in (driver, user):
            domain.dump_core(tmp_path / f"{domain.name}.core")
        cores = {name: read_core(tmp_path / f"{name}.core") for name in ("driver", "user")}
    files = {name: {path for _, path in core.files()} for name, core in cores.items()}
    assert f"/memfd:hvd-extent-{driver.domid} (deleted)" in files["driver"]
    assert f"/memfd:hvd-extent-{user.domid} (deleted)" not in files["driver"]
    assert f"/memfd:hvd-extent-{user.domid} (deleted)" in files["user"]


# ---- somebody dies meanwhile -----------------------------------------------------------------------------------------


def dumper_of(machine: int) -> int:
    """The process that writes a core."""
    children = [int(pid) for pid in Path(f"/proc/{machine}/task/{machine}/children").read_text().split()]
    (dumper,) = (pid for pid in children if "dumper" in Path(f"/proc/{pid}/comm").read_text())
    return dumper


def stop(pid: int) -> None:
    """Returns when it stands still, or has ended."""
    process = Watched(pid)
    try:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: process.state() in ("T", "Z", ""), "it to stand still")
    finally:
        process.close()


class Held:
    """A domain whose dump has begun and does not go on until `go`; `outcome` is what came of it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.core = directory / "held.core"
        (directory / "held.py").write_text(HELD)
        config = traceable("held", directory / "held.py", memory=512)
        self.domain = cluster.create(config)
        self.domain.wait_ready()
        self._machine = cluster.info()["machine_pid"]
        for _ in range(TRIES):
            self.outcome: list[Exception | None] = []
            self._thread = threading.Thread(target=self._dump, args=(cluster.run_dir,))
            self._thread.start()
            if self._is_caught():
                return
            self.go()  # it had written all before we had a CPU
            assert self.result() is None
        pytest.fail(f"the dumper was {TRIES} times not caught at work")

    def _is_caught(self) -> bool:
        """Whether the dumper stands still, and has a part of the core written."""
        self._dumper = 0
        while not self._parts():
            if not self._thread.is_alive():
                return False
        with contextlib.suppress(ValueError, OSError):
            self._dumper = dumper_of(self._machine)
            stop(self._dumper)
            return bool(self._parts())
        return False

    def _parts(self) -> list[Path]:
        return list(self.core.parent.glob("held.core.*.part"))

    def _dump(self, run_dir: Path) -> None:
        try:
            with Cluster.attach(run_dir) as other:
                other.domain("held").dump_core(self.core)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.outcome.append(error)
        else:
            self.outcome.append(None)

    def go(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # what it dumped has ended, and it with that
            if self._dumper:
                os.kill(self._dumper, signal.SIGCONT)

    def result(self) -> Exception | None:
        self._thread.join(60)
        return self.outcome[0]

    def left(self) -> list[str]:
        return sorted(each.name for each in self.core.parent.glob("held.core*"))


@pytest.fixture
def held(cluster: Cluster, tmp_path: Path) -> Iterator[Held]:
    made = Held(cluster, tmp_path)
    yield made
    made.go()
    made.result()


def test_a_core_is_whole_and_its_domain_goes_on_although_the_broker_dies_meanwhile(cluster, held, read_core):
    broker = cluster.info()["broker_pid"]
    os.kill(broker, signal.SIGKILL)
    while cluster.info()["broker_pid"] == broker:
        continue
    assert held.domain.info().state is DomainState.PAUSED
    held.go()
    assert held.result() is None
    assert held.left() == ["held.core"]
    assert len(read_core(held.core).threads()) >= 2
    assert held.domain.state is DomainState.RUNNING


@pytest.mark.parametrize("end", ["destroy", "kill"])
def test_one_that_is_ended_meanwhile_leaves_no_half_core(cluster, held, end: str):
    getattr(held.domain, end)()
    assert isinstance(held.result(), CoreDumpFailed)
    held.domain.wait_gone()
    assert held.left() == []


def test_a_second_core_at_a_time_is_refused(cluster, held, tmp_path):
    with pytest.raises(HypercallError, match=r"is being written to .*held.core"):
        held.domain.dump_core(tmp_path / "second.core")
