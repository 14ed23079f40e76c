"""What is counted of a machine's descriptors: what it would keep for ever, not how many of the living it watches."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.toolstack.faults.conservation import TABLES, census


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as made:
        yield made
        made.kill()


def descriptors() -> int:
    """Ours, as of a machine whose tables are empty."""
    info: dict[str, Any] = dict.fromkeys(TABLES, 0) | {"made_ahead": True}
    cluster: Any = SimpleNamespace(
        info=lambda: info, quotas=list, infos=dict, connection=SimpleNamespace(machine_pid=os.getpid())
    )
    return census(cluster).counts["descriptors of the machine"]


def test_how_many_threads_of_the_living_are_watched_is_not_counted_and_a_watch_on_the_dead_is(
    child: subprocess.Popen[bytes],
) -> None:
    """A thread that was not there yet when its process was ready is not watched: that is a matter of time."""
    before = descriptors()
    watches = [os.pidfd_open(child.pid) for _ in range(3)]
    try:
        assert descriptors() == before
        child.kill()
        child.wait()
        assert descriptors() == before + len(watches)
    finally:
        for watch in watches:
            os.close(watch)


def test_what_else_is_held_is_counted() -> None:
    before = descriptors()
    with open(os.devnull) as one, open(os.devnull) as other:
        assert one.fileno() != other.fileno() and descriptors() == before + 2
