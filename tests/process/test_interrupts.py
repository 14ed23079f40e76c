"""Commands that are interrupted at whatever moment: what they made is there and told of, or it is not there."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster
from hvd.toolstack.cluster.errors import NotRunning
from hvd.toolstack.cluster.plugging import ends_of
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.run_dir import machine_pid
from tests.progress import without_progress
from tests.waiting import wait_for, wait_stopped

DEADLINE_S = 60.0
SEEDS = range(3)
MORE = ["one", "two", "three"]
INTERRUPTED = 130
PYTHONS_OWN_START = ("Fatal Python error: init_", "Could not import runpy module")
"""What Python says, with status 1, when it is interrupted before it has come to whatever it is to run."""
LOST_BY_PYTHON = re.compile(r"Exception ignored in: .*\nTraceback .*\n(?:  .*\n)*KeyboardInterrupt: ?\n")
"""An interrupt that falls into a callback of what imports modules: it is told of, and interrupts nothing."""
DEAF = """
import time

def main(guest):
    guest.ready()
    while True:
        time.sleep(1)

AUTO_READY = False
"""
Clocked = tuple[int, str, str]
"""Exit status, standard output, standard error."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """Where a machine may run; none does behind the test."""
    (tmp_path / "guest.py").write_text("def main(guest):\n    guest.run_forever()\n")
    (tmp_path / "more.toml").write_text("".join(f'[[domain]]\nname = "{n}"\nkernel = "guest.py"\n' for n in MORE))
    yield tmp_path / "run"
    try:
        with Cluster.attach(tmp_path / "run") as cluster:
            cluster.down(grace_s=0)
    except NotRunning:
        pass


def start(run_dir: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hvd", *words], env=os.environ | {"HVD_RUN_DIR": str(run_dir)}, cwd=run_dir.parent,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(command: subprocess.Popen[str]) -> Clocked:
    out, err = command.communicate(timeout=DEADLINE_S)
    err = LOST_BY_PYTHON.sub("", err)
    if any(words in err for words in PYTHONS_OWN_START):
        return -signal.SIGINT, out, err
    if command.returncode != -signal.SIGINT or "in main\n" in err:  # else Python told, which loads us
        assert "Traceback" not in err, err
    return command.returncode, out, err


def interrupted(run_dir: Path, seed: int, whole_s: float, number: signal.Signals, *words: str) -> Clocked:
    """The command, sent a signal at a moment that the seed chooses of the time that it takes."""
    command = start(run_dir, *words)
    select.select([], [], [], random.Random(seed).uniform(0.0, 1.1) * whole_s)
    if command.poll() is None:
        command.send_signal(number)
    return ended(command)


def machine_runs(run_dir: Path) -> bool:
    try:
        directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return machine_pid(directory) is not None
    finally:
        os.close(directory)


def names(cluster: Cluster) -> list[str]:
    return [info.name for info in cluster.infos().values()]


IN_A_CLASS = """
import functools, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may have us ignore it
def interrupted(self, owner, name):
    os.kill(os.getpid(), signal.SIGINT)
functools.cached_property.__set_name__ = interrupted
sys.argv = ["hvd", "list"]
from hvd.__main__ import main
main()
"""
IN_THE_NATIVE_MODULE = """
import enum, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.default_int_handler)
import hvd.transport.errors
original = enum.EnumMeta.__call__
def interrupted(*words, **named):
    os.kill(os.getpid(), NUMBER)
    return original(*words, **named)
enum.EnumMeta.__call__ = interrupted
try:
    import hvd.transport._native
except KeyboardInterrupt:
    raise SystemExit(130)
"""
INTERRUPTED_LOADING = {
    "class": IN_A_CLASS,
    "native": IN_THE_NATIVE_MODULE.replace("NUMBER", "signal.SIGINT"),
    "native, SIGTERM": IN_THE_NATIVE_MODULE.replace("NUMBER", "signal.SIGTERM"),
}


@pytest.mark.parametrize("program", INTERRUPTED_LOADING.values(), ids=INTERRUPTED_LOADING)
def test_who_is_interrupted_while_a_class_or_the_native_module_is_made_is_interrupted_as_ever(run_dir, program):
    """Python makes another error of it there, and nanobind would abort."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"HVD_RUN_DIR": str(run_dir)}, capture_output=True,
        text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_of_a_create_that_is_interrupted_all_is_there_and_told_or_nothing(run_dir, number, seed):
    with Cluster.build(name="interrupts", run_dir=run_dir) as cluster:
        began = time.monotonic()
        assert ended(start(run_dir, "create", "--no-wait", "--kernel", "guest.py", "--name", "first"))[0] == 0
        whole_s = time.monotonic() - began
        status, out, err = interrupted(run_dir, seed, whole_s, number, "create", "more.toml")
        there = names(cluster)[2:]
        assert status in (0, INTERRUPTED, -number), err  # the last before anything of ours is loaded
        assert there == (MORE if status == 0 else [])
        assert [name for name in MORE if f"created {name} " in out] == there


def test_a_create_that_waits_for_a_domain_takes_all_of_it_back_when_it_is_interrupted(run_dir, tmp_path):
    (tmp_path / "guest.py").write_text("AUTO_READY = False\ndef main(guest):\n    guest.run_forever()\n")
    with Cluster.build(name="interrupts", run_dir=run_dir) as cluster, cluster.events() as events:
        command = start(run_dir, "create", "more.toml")
        while (event := events.next(DEADLINE_S)).event != "starting" or event.name != MORE[-1]:
            continue
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):  # whoever asks again interrupts no cleaning up
            command.send_signal(number)
        assert command.stderr is not None
        said = ""
        while "nothing was created\n" not in said:
            said += (line := command.stderr.readline())
            assert line, said
        command.send_signal(signal.SIGTERM)  # nor does who comes behind its word change its status
        status, out, err = ended(command)
        told = without_progress(said + err)
        assert (status, out, told) == (INTERRUPTED, "", "hvd: interrupted: nothing was created\n")
        assert names(cluster) == ["Domain-0"]


@pytest.fixture
def devices(run_dir: Path, tmp_path: Path) -> Iterator[Cluster]:
    """A driver domain, and a domain that looks at no device that it is given."""
    (tmp_path / "deaf.py").write_text(DEAF)
    (tmp_path / "b.img").write_bytes(bytes(1 << 20))
    (tmp_path / "c.toml").write_text(
        '[[domain]]\nname = "driver"\nkernel = "hvd:driver_domain"\ndriver_domain = true\n'
        '[[domain]]\nname = "deaf"\nkernel = "deaf.py"\n[[domain]]\nname = "guest"\nkernel = "guest.py"\n'
        'disk = ["vdev=xvdb,backend=driver,target=b.img"]\n'
    )
    with Cluster.load(tmp_path / "c.toml", run_dir=run_dir) as cluster:
        cluster.wait_ready()
        yield cluster


def asked_again(command: subprocess.Popen[str]) -> Clocked:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # whoever asks again interrupts no cleaning up
        command.send_signal(number)
    return ended(command)


@pytest.mark.parametrize(
    "words",
    [("block-attach", "deaf", "b.img,,xvdc,r,backend=driver"), ("network-attach", "deaf", "backend=driver")],
)
def test_a_device_is_taken_away_again_when_whoever_waits_for_it_is_interrupted(devices, run_dir, words):
    with devices.events() as events:
        command = start(run_dir, *words)
        while events.next(DEADLINE_S).event != "attached":
            continue
        status, out, err = asked_again(command)
    assert (status, out) == (INTERRUPTED, "") and err.endswith("hvd: interrupted: nothing was attached\n")
    assert not devices.domain("deaf").info().devices


def test_a_domain_keeps_its_disk_when_whoever_waits_for_it_to_go_is_interrupted(devices, run_dir):
    guest, driver = devices.domain("guest"), devices.domain("driver")
    online = m.StoreRead(0, f"/local/domain/{driver.domid}/backend/vbd/{guest.domid}/51728/online")
    wait_for(lambda: ends_of(devices, guest.domid, driver.domid, guest.config().devices[0]).connected)
    guest.pause()
    wait_stopped(guest.pid)
    command = start(run_dir, "block-detach", "guest", "xvdb")
    wait_for(lambda: devices.call(online) == b"0")
    status, out, err = asked_again(command)
    assert (status, out) == (INTERRUPTED, "")
    assert err.endswith("hvd: interrupted: the domain keeps the device, unless it had begun to let go\n")
    assert devices.call(online) == b"1"
    with pytest.raises(HypercallError, match="nobody has asked domain guest"):
        devices.call(m.DomctlKeep(guest.domid, "vbd", 51728))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_of_an_up_that_is_interrupted_a_machine_is_there_and_told_or_there_is_none(run_dir, number, seed):
    began = time.monotonic()
    assert ended(start(run_dir, "up", "-d"))[0] == 0
    whole_s = time.monotonic() - began
    assert ended(start(run_dir, "down", "--grace", "0"))[0] == 0
    status, out, err = interrupted(run_dir, seed, whole_s, number, "up", "-d", "more.toml")
    if status == 0:
        assert "is up in" in out and machine_runs(run_dir)
    elif number == signal.SIGINT:
        assert not machine_runs(run_dir) and out == "", (status, out, err)
    elif "is up in" not in out:  # nobody waits for its end; of one that was told of it may have been let go, or not
        until = time.monotonic() + DEADLINE_S
        while machine_runs(run_dir):
            assert time.monotonic() < until, (status, out, err)


def test_a_machine_goes_on_behind_the_up_that_told_of_it(run_dir):
    status, out, _ = ended(start(run_dir, "up", "-d", "more.toml"))
    assert status == 0 and "is up in" in out
    with Cluster.attach(run_dir) as cluster:
        cluster.wait_ready(DEADLINE_S)
        assert names(cluster) == ["Domain-0", *MORE]


def test_whoever_cannot_be_told_that_it_is_up_has_no_machine(run_dir):
    command = start(run_dir, "up", "-d")
    assert command.stdout is not None
    command.stdout.close()
    command.stdout = None
    status, _, err = ended(command)
    assert status == 1, err
    until = time.monotonic() + DEADLINE_S
    while machine_runs(run_dir):
        assert time.monotonic() < until


def test_whoever_reads_no_more_than_that_it_is_up_has_a_machine(run_dir):
    """As `hvd up -d --timings | head -1` does: there is room for the first line, and none for the second."""
    reader, writer = os.pipe()
    room = len(f"hvd is up in {run_dir}: Domain-0\n")
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
    os.write(writer, bytes(size - room))
    command = subprocess.Popen(
        [sys.executable, "-m", "hvd", "up", "-d", "--timings"], env=os.environ | {"HVD_RUN_DIR": str(run_dir)},
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    until = time.monotonic() + DEADLINE_S
    while struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0] < size:
        assert command.poll() is None and time.monotonic() < until
    os.close(reader)
    assert ended(command)[0] == 1
    assert ended(start(run_dir, "list"))[0] == 0
    assert machine_runs(run_dir)


def test_no_process_is_left_of_an_up_without_standard_descriptors_that_is_killed_before_its_order(run_dir, tmp_path):
    """Its pipes take their numbers then."""
    os.mkfifo(tmp_path / "never.toml")
    command = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", sys.executable, "-m", "hvd", "up", "never.toml"],
        env=os.environ | {"HVD_RUN_DIR": str(run_dir)}, cwd=tmp_path,
    )  # fmt: skip
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    until = time.monotonic() + DEADLINE_S
    while not (found := children.read_text().split()):
        assert command.poll() is None and time.monotonic() < until
    machine = os.pidfd_open(int(found[0]))
    command.kill()
    command.wait(DEADLINE_S)
    gone = select.select([machine], [], [], DEADLINE_S)[0]
    if not gone:
        signal.pidfd_send_signal(machine, signal.SIGKILL)
    os.close(machine)
    assert gone
