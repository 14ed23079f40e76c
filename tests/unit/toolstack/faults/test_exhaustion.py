"""Faults of running out, where a cluster is not needed to see what they do."""

import errno
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.toolstack.faults.exhaustion import DATA, FILES, LEAST, MIB, TRIES, FullDisk, note_limits, soft_limit
from hvd.toolstack.faults.processes import Watched


def full_disk(tmp_path) -> FullDisk:
    order: Any = SimpleNamespace(parameters={"most": 1 << 20, "leave": 0}, cluster=SimpleNamespace(run_dir=tmp_path))
    return FullDisk(order)


def test_a_disk_of_which_others_take_some_meanwhile_is_full_all_the_same(tmp_path, monkeypatch):
    free = 8 * MIB
    asked: list[int] = []

    def allocate(descriptor: int, offset: int, length: int) -> None:
        nonlocal free
        free -= 4096 if len(asked) < 3 else 0  # somebody else's log
        asked.append(length)
        if length > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        free -= length

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    fault = full_disk(tmp_path)
    fault.begin()
    assert (free, len(asked)) == (0, 4)
    fault.undo()


def test_a_disk_that_gives_nothing_is_asked_so_often_and_no_more(tmp_path, monkeypatch):
    asked: list[int] = []

    def refuse(descriptor: int, offset: int, length: int) -> None:
        asked.append(length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fault = full_disk(tmp_path)
    fault.begin()
    assert len(asked) == TRIES
    fault.undo()


FAMILY = "import os, signal; os.fork(); os.write(1, b'x'); signal.pause()"


@pytest.fixture
def family():
    """A process and one that it has started."""
    process = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(2):
        assert os.read(process.stdout.fileno(), 1) == b"x"
    watched = Watched(process.pid)
    (child,) = watched.soft_limits_below(FILES)
    yield SimpleNamespace(process=watched, before={}), [process.pid, child]
    os.kill(child, signal.SIGKILL)
    process.kill()
    process.communicate()
    watched.close()


@pytest.mark.parametrize(("name", "limit"), [(FILES, resource.RLIMIT_NOFILE), (DATA, resource.RLIMIT_DATA)])
def test_what_a_fault_before_has_not_given_back_yet_counts_as_taken(family, name, limit):
    """Else the next fault's witness would wait in vain for less than that."""
    effect, pids = family
    note_limits(name)(effect)
    assert soft_limit(name)(effect).activated is None
    for number, pid in enumerate(pids, 1):
        resource.prlimit(pid, limit, (LEAST[name], resource.prlimit(pid, limit)[1]))
        assert soft_limit(name)(effect).activated is (True if number == len(pids) else None)
    note_limits(name)(effect)
    assert soft_limit(name)(effect).activated is True
