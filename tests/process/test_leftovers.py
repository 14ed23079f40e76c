"""Owns the proof that tests/conftest.py notices what a careless test leaves: each test runs a session of its own."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.waiting import wait_for

CONFTEST = Path(__file__).parents[1] / "conftest.py"
DEADLINE_S = 280

SLEEPER = 'subprocess.Popen(["sleep", "1000"], start_new_session=True)'
DAEMON = """
ours, theirs = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
os.close(theirs)
os.read(ours, 1)
"""
"""It is a program of its own when the test ends: while a process becomes one it has no environment to be known by."""


def session_with(directory: Path, body: str, *options: str, folder: str = "unit") -> subprocess.CompletedProcess[str]:
    """Runs pytest, with our conftest and one test that consists of `body`, in a tree of its own."""
    place = directory / "tests" / folder
    place.mkdir(parents=True)
    patient, impatient = "GRACE_S = 5.0", "GRACE_S = 0.2"
    conftest = CONFTEST.read_text()
    assert patient in conftest
    conftest = conftest.replace(patient, impatient)
    for shared, own in (("/sys/fs/cgroup", "groups"), ("/dev/shm", "shm")):  # where other tests leave something, too
        assert f'"{shared}"' in conftest
        (directory / own).mkdir(exist_ok=True)
        conftest = conftest.replace(f'"{shared}"', f'"{directory / own}"')
    (directory / "tests" / "conftest.py").write_text(conftest)
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    (place / "test_one.py").write_text(f"import os, subprocess, sys, tempfile\nkept = []\ndef test_one():\n{lines}")
    (directory / "pytest.ini").write_text("[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    environment = os.environ | {"HVD_TEST_SESSION": f"{os.environ['HVD_TEST_SESSION']}.{uuid.uuid4().hex}"}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "with a worker"])
@pytest.mark.parametrize("body", ["pass", 'subprocess.run(["sleep", "0"], check=True)'])
def test_a_tidy_session_passes(tmp_path, body, options):
    result = session_with(tmp_path, body, *options)
    assert result.returncode == 0, result.stdout
    assert "left behind" not in result.stdout


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "with a worker"])
@pytest.mark.parametrize("body", [SLEEPER, DAEMON], ids=["child", "daemon"])
def test_a_process_that_outlives_its_test_fails_the_session_and_is_killed(tmp_path, body, options):
    result = session_with(tmp_path, body, *options)
    assert "1 passed" in result.stdout
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if "sleep 1000" in line and "process" in line]
    pid = int(line.split("process ")[1].split()[0])
    wait_for(lambda: not sleeps(pid), f"{pid}, which was killed, to be gone")


def sleeps(pid: int) -> bool:
    """Whether it is what was left; a zombie has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")
    except OSError:
        return False


def test_a_child_that_nobody_waited_for_is_named(tmp_path):
    result = session_with(tmp_path, "if os.fork() == 0: os._exit(0)")
    assert result.returncode == 1
    assert "child of" in result.stdout


def test_a_memfd_that_outlives_its_test_is_named(tmp_path):
    result = session_with(tmp_path, 'kept.append(os.memfd_create("hvd-forgotten"))')
    assert result.returncode == 1
    assert "memfd:hvd-forgotten" in result.stdout


def test_a_name_in_shared_memory_is_named(tmp_path):
    name = tmp_path / "shm" / "hvd-forgotten"
    result = session_with(tmp_path, f'open("{name}", "w").close()')
    assert result.returncode == 1
    assert f"shared memory: {name}" in result.stdout


def test_a_control_group_of_a_dead_machine_is_named_and_none_that_was_there_before(tmp_path):
    """What another session left that was cut off failed every session after it."""
    stale, left = tmp_path / "groups/memory/hvd-4194304.1", tmp_path / "groups/pids/hvd-4194304.2"
    stale.mkdir(parents=True)
    result = session_with(tmp_path, f'os.makedirs("{left}")')
    assert result.returncode == 1
    assert f"control group: {left}" in result.stdout
    assert str(stale) not in result.stdout


def test_an_open_descriptor_fails_a_process_test(tmp_path):
    result = session_with(tmp_path, "kept.append(os.pipe())", folder="process")
    assert result.returncode == 1
    assert "left open" in result.stdout
    assert "pipe:[" in result.stdout


def test_a_descriptor_that_a_failed_test_still_holds_adds_no_second_failure(tmp_path):
    result = session_with(tmp_path, "kept.append(os.pipe())\nassert not kept", folder="process")
    assert "1 failed" in result.stdout
    assert "left open" not in result.stdout


def test_the_exit_status_of_failing_tests_stays(tmp_path):
    result = session_with(tmp_path, f"{SLEEPER}\nassert False")
    assert result.returncode == 1
    assert "left behind by this session" in result.stdout


HIDDEN_ORPHAN = """
import ctypes, os, signal
if os.fork():
    os._exit(0)
libc = ctypes.CDLL(None)
libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
libc.prctl(15, b"hvd-orphan", 0, 0, 0)  # PR_SET_NAME
print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every process's environment")
def test_an_orphan_that_hides_its_environment_is_known_by_its_name(tmp_path):
    (tmp_path / "orphan.py").write_text(HIDDEN_ORPHAN)
    body = """
with subprocess.Popen([sys.executable, "orphan.py"], stdout=subprocess.PIPE, text=True) as child:
    open("pid", "w").write(child.stdout.readline())
"""
    result = session_with(tmp_path, body)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert result.returncode == 1
    assert "(hvd-orphan)" in result.stdout
