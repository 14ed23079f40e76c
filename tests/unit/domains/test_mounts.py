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


def own_namespace():
    return os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def test_of_who_has_moved_both_are_kept_and_the_first_goes_when_it_has_settled(kept):
    child = Child()
    kept.keep(child.pid)
    kept.settled(child.pid)
    assert (open_namespaces(), kept.waiting) == (1, False)
    kept.moved(child.pid, own_namespace())
    assert (open_namespaces(), kept.waiting) == (2, False)
    kept.settled(child.pid)
    assert (open_namespaces(), kept.waiting) == (2, True)
    kept.close_one()
    assert (open_namespaces(), kept.waiting) == (1, False)
    child.kill()
    wait_for_death(kept)
    kept.close_one()
    assert (open_namespaces(), kept.waiting) == (0, False)


def test_of_who_has_moved_and_dies_before_it_has_settled_both_are_taken_apart(kept):
    child = Child()
    kept.keep(child.pid)
    kept.moved(child.pid, own_namespace())
    child.kill()
    wait_for_death(kept)
    for left in (1, 0):
        kept.close_one()
        assert (open_namespaces(), kept.waiting) == (left, bool(left))


def test_nothing_is_kept_of_who_has_moved_and_is_not_known(kept):
    kept.moved(1, own_namespace())
    kept.settled(1)
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
