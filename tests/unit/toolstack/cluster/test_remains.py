"""What a machine leaves in its directory is removed, and nothing else."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster.errors import BadRunDir
from hvd.toolstack.cluster.remains import remove_remains
from hvd.transport.run_dir import start_time


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The directory of a machine that was killed: the pid in its lock file was never given to a process."""
    run_dir = tmp_path / "run"
    (run_dir / "log").mkdir(parents=True)
    (run_dir / "log" / "guest.log").write_text("hello\n")
    (run_dir / "domains").mkdir()
    (run_dir / "domains" / "1.1").touch()
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(run_dir / "control"))
    (run_dir / "machine.lock").write_text("4194304 1\n")
    return run_dir


def test_sockets_and_lock_are_removed_and_logs_stay(left):
    remains = remove_remains(left)
    assert set(remains.files) == {"control", "domains", "machine.lock"}
    assert remains.processes == ()
    assert names_in(left) == ["log"]


def test_logs_go_too_when_asked_and_then_the_directory(left):
    assert set(remove_remains(left, logs=True).files) == {"control", "domains", "machine.lock", "log"}
    assert not left.exists()


def test_cores_stay_as_logs_do_but_for_those_that_were_never_finished(left):
    (left / "cores").mkdir()
    for name in ("guest.1.core", "guest.2.core.part"):
        (left / "cores" / name).touch()
    assert "cores/guest.2.core.part" in remove_remains(left).files
    assert names_in(left / "cores") == ["guest.1.core"]
    assert "cores" in remove_remains(left, logs=True).files
    assert not left.exists()


def test_twice_is_as_good_as_once(left):
    remove_remains(left)
    assert remove_remains(left).files == ()
    remove_remains(left, logs=True)
    assert remove_remains(left, logs=True).files == ()


def test_a_directory_that_is_no_clusters_is_left_alone(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadRunDir):
        remove_remains(tmp_path, logs=True)
    assert names_in(tmp_path) == ["log", "thesis.txt"]


ORPHAN = """
import os, signal
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.fixture
def session() -> Iterator[tuple[int, int, int]]:
    """A session whose leader is gone and whose one member is not: leader, its start time, member."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as leader:
        born = start_time(leader.pid)
        assert leader.stdout is not None
        assert born is not None
        member = int(leader.stdout.readline())
        leader.wait(timeout=30)
        try:
            yield leader.pid, born, member
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)


def test_a_process_that_outlived_its_machine_is_ended(left, session):
    leader, born, member = session
    pidfd = os.pidfd_open(member)
    try:
        (left / "machine.lock").write_text(f"{leader} {born}\n")
        assert remove_remains(left).processes == (member,)
        assert select.select([pidfd], [], [], 0)[0]
    finally:
        os.close(pidfd)


def test_processes_older_than_the_machine_are_left_alone(left, session):
    leader, born, member = session
    (left / "machine.lock").write_text(f"{leader} {born + 1_000_000}\n")
    assert remove_remains(left).processes == ()
    os.kill(member, 0)


def test_a_process_that_got_the_machines_number_later_is_left_alone(left):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        born = start_time(other.pid)
        assert born is not None
        (left / "machine.lock").write_text(f"{other.pid} {born - 1}\n")
        assert remove_remains(left).processes == ()
        assert other.poll() is None
        other.communicate(b"\n", timeout=30)


@pytest.mark.parametrize("text", ["", "x y\n", "12\n", "-1 -1\n", "0 0\n"])
def test_a_lock_file_without_a_process_in_it_names_nobody(left, text):
    (left / "machine.lock").write_text(text)
    assert remove_remains(left).processes == ()


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())
