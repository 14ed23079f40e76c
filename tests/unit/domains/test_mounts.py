"""A dead process's mount namespace stays until there is time to take it apart, and costs its death nothing."""

import contextlib
import os
import select
import signal
from pathlib import Path

import pytest

from hvd.domains import mounts
from hvd.domains.mounts import KeptMounts

DEADLINE_MS = 30_000


class Child:
    """A process that lives until it is killed."""

    def __init__(self):
        self.pid = os.fork()
        if self.pid == 0:
            signal.pause()
            os._exit(0)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def kept():
    made = KeptMounts()
    yield made
    while made.waiting:
        made.close_one()
    os.close(made.fileno())


def wait_for_death(kept):
    poll = select.poll()
    poll.register(kept, select.POLLIN)
    assert poll.poll(DEADLINE_MS)
    kept.note_deaths()


def open_namespaces():
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found += str(descriptor.readlink()).startswith("mnt:")
    return found


def test_a_namespace_stays_open_until_somebody_has_time_after_its_process_died(kept):
    child = Child()
    kept.keep(child.pid)
    assert (open_namespaces(), kept.waiting) == (1, False)
    child.kill()
    wait_for_death(kept)
    assert (open_namespaces(), kept.waiting) == (1, True)
    kept.close_one()
    assert (open_namespaces(), kept.waiting) == (0, False)


def test_each_is_taken_apart_by_itself(kept):
    children = [Child(), Child()]
    for child in children:
        kept.keep(child.pid)
    for child in children:
        child.kill()
        wait_for_death(kept)
    kept.close_one()
    assert (open_namespaces(), kept.waiting) == (1, True)


def test_nothing_is_kept_of_a_process_that_is_gone(kept):
    child = Child()
    child.kill()
    kept.keep(child.pid)
    assert (open_namespaces(), kept.waiting) == (0, False)


def test_past_kept_max_a_process_takes_its_own_apart(monkeypatch):
    monkeypatch.setattr(mounts, "KEPT_MAX", 1)
    kept, children = KeptMounts(), [Child(), Child()]
    for child in children:
        kept.keep(child.pid)
    assert open_namespaces() == 1
    for child in children:
        child.kill()
    wait_for_death(kept)
    kept.close_one()
    os.close(kept.fileno())
