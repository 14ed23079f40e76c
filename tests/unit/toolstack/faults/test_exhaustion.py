"""Faults of running out, where a cluster is not needed to see what they do."""

import errno
import os
from types import SimpleNamespace
from typing import Any

from hvd.toolstack.faults.exhaustion import MIB, TRIES, FullDisk


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
