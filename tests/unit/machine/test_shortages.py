"""What all processes that a domain has started are denied: whoever forks, and until each has again what it had."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.machine import shortages
from hvd.machine.children import Child
from hvd.machine.shortages import PASSES_MAX, SETTLES_S, TRIES_MAX, Shortages, Unfinished, Walk
from hvd.transport.descendants import family
from hvd.transport.machine_link import DESCRIPTORS, MEMORY
from tests.waiting import wait_for

FAMILY = """
import os, resource, signal

def child(soft):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 1000))
    resource.setrlimit(resource.RLIMIT_DATA, (soft << 20, resource.RLIM_INFINITY))
    os.write(1, b"x")
    while True:
        signal.sigwait({signal.SIGUSR1})
        if os.fork() == 0:
            os.write(1, b"x")
            signal.pause()

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
for soft in (500, 600):
    if os.fork() == 0:
        child(soft)
signal.pause()
"""
LIMITS = {DESCRIPTORS: (resource.RLIMIT_NOFILE, 1), MEMORY: (resource.RLIMIT_DATA, 1 << 20)}
WHAT = pytest.mark.parametrize("what", LIMITS)
FAILED = "exited with status 1"


class Domain:
    """A process that has started two, each of which forks when it gets SIGUSR1."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE)
        self.child = Child("domain", self._process.pid, 7, 1)
        self._hear(2)

    def _hear(self, count: int) -> None:
        assert self._process.stdout is not None
        for _ in range(count):
            assert os.read(self._process.stdout.fileno(), 1) == b"x"

    def others(self) -> list[int]:
        return sorted(family(self.child.pid)[1:])

    def fork(self, pid: int) -> int:
        before = self.others()
        os.kill(pid, signal.SIGUSR1)
        self._hear(1)
        (born,) = set(self.others()) - set(before)
        return born

    def soft(self, pid: int, what: str) -> int:
        limit, unit = LIMITS[what]
        return resource.prlimit(pid, limit)[0] // unit

    def end(self) -> None:
        for pid in reversed(family(self.child.pid)):
            os.kill(pid, signal.SIGKILL)
        self._process.communicate()
        os.close(self.child.pidfd)


@pytest.fixture
def domain() -> Iterator[Domain]:
    made = Domain()
    yield made
    made.end()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked as often, without a wait: nobody's memory is large here."""
    monkeypatch.setattr(shortages, "SETTLES_S", (0.0,) * len(SETTLES_S))


class Machine:
    """Reaps deniers as the machine does."""

    def __init__(self) -> None:
        self.deniers: list[Child] = []
        self.shortages = Shortages(self.deniers.append)

    def deny(self, domain: Domain, what: str) -> None:
        self.shortages.deny(domain.child, what)
        while self.deniers:
            self.reap()

    def reap(self) -> str:
        denier = self.deniers.pop(0)
        os.waitid(os.P_PIDFD, denier.pidfd, os.WEXITED | os.WNOWAIT)
        how = denier.reap()
        os.close(denier.pidfd)
        assert how is not None
        self.shortages.ended(denier, how)
        return how


@WHAT
def test_each_process_is_denied_it_and_one_that_is_born_later_and_each_has_again_what_it_had(domain: Domain, what: str):
    machine, (first, second) = Machine(), domain.others()
    mine, before = domain.soft(os.getpid(), what), domain.soft(domain.child.pid, what)
    machine.deny(domain, what)
    assert max(domain.soft(first, what), domain.soft(second, what)) < 100
    born = domain.fork(first)
    assert domain.soft(born, what) == domain.soft(first, what)
    machine.deny(domain, what)  # as the next broker says
    assert domain.soft(born, what) == domain.soft(first, what)
    machine.deny(domain, "")
    assert [domain.soft(pid, what) for pid in (first, second, born)] == [500, 600, 600]
    assert (domain.soft(os.getpid(), what), domain.soft(domain.child.pid, what)) == (mine, before)


def test_nothing_more_can_be_opened_and_what_is_open_stays(domain: Domain):
    machine = Machine()
    machine.deny(domain, DESCRIPTORS)
    for pid in domain.others():
        taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert set(range(domain.soft(pid, DESCRIPTORS))) <= taken
    machine.deny(domain, "")


def test_who_moves_its_limit_itself_meanwhile_keeps_that(domain: Domain):
    machine, (first, second) = Machine(), domain.others()
    machine.deny(domain, DESCRIPTORS)
    resource.prlimit(first, resource.RLIMIT_NOFILE, (77, 1000))
    machine.deny(domain, "")
    assert [domain.soft(pid, DESCRIPTORS) for pid in (first, second)] == [77, 600]


def test_what_it_has_set_itself_is_what_it_has_again_though_it_was_denied_that_too(domain: Domain):
    machine, (first, second) = Machine(), domain.others()
    machine.deny(domain, DESCRIPTORS)
    resource.prlimit(first, resource.RLIMIT_NOFILE, (77, 1000))
    machine.deny(domain, DESCRIPTORS)  # as the next broker says
    assert domain.soft(first, DESCRIPTORS) < 77
    machine.deny(domain, "")
    assert [domain.soft(pid, DESCRIPTORS) for pid in (first, second)] == [77, 600]


@WHAT
@pytest.mark.parametrize("looks", range(1, len(SETTLES_S) + 1))
def test_whoever_is_listed_late_as_it_was_being_forked_is_reached(domain: Domain, monkeypatch, what: str, looks: int):
    """Its limits are those that its parent had when that began to fork."""
    machine, (first, second) = Machine(), domain.others()
    left = looks

    def family_but_one(pid: int) -> list[int]:
        nonlocal left
        left -= 1
        return [each for each in family(pid) if each != second or left < 0]

    monkeypatch.setattr(shortages, "family", family_but_one)  # each denier begins with as many looks left
    left += 2  # one to find whose they are, one that finds the other
    machine.deny(domain, what)
    assert max(domain.soft(first, what), domain.soft(second, what)) < 100
    machine.deny(domain, "")
    assert [domain.soft(pid, what) for pid in (first, second)] == [500, 600]


def test_who_looks_on_is_not_waited_for_when_something_else_is_wanted(domain: Domain, monkeypatch):
    monkeypatch.setattr(shortages, "SETTLES_S", (3600.0,))
    machine, others = Machine(), domain.others()
    machine.shortages.deny(domain.child, DESCRIPTORS)
    wait_for(lambda: max(domain.soft(pid, DESCRIPTORS) for pid in others) < 100)
    machine.shortages.deny(domain.child, "")
    assert machine.reap() == "killed by SIGKILL"
    wait_for(lambda: [domain.soft(pid, DESCRIPTORS) for pid in others] == [500, 600])
    machine.shortages.forget(domain.child)
    machine.deniers[0].signal(signal.SIGKILL)
    machine.reap()


def test_from_one_shortage_to_another_everything_is_given_back(domain: Domain):
    machine, (first, _) = Machine(), domain.others()
    machine.deny(domain, DESCRIPTORS)
    machine.deny(domain, MEMORY)
    assert (domain.soft(first, DESCRIPTORS), domain.soft(first, MEMORY)) == (500, 0)
    machine.deny(domain, "")
    assert domain.soft(first, MEMORY) == 500


def test_it_is_over_although_that_is_said_while_a_denier_is_on_its_way(domain: Domain):
    machine, others = Machine(), domain.others()
    machine.shortages.deny(domain.child, DESCRIPTORS)
    machine.shortages.deny(domain.child, "")
    assert len(machine.deniers) == 1
    while machine.deniers:
        machine.reap()
    assert [domain.soft(pid, DESCRIPTORS) for pid in others] == [500, 600]


def test_a_denier_that_is_killed_is_followed_by_another_so_often_and_no_more(domain: Domain, monkeypatch):
    machine, (first, _) = Machine(), domain.others()
    with monkeypatch.context() as patched:
        patched.setattr(shortages.Walk, "deny", lambda self: os.kill(os.getpid(), signal.SIGKILL))
        machine.shortages.deny(domain.child, DESCRIPTORS)
        ends = []
        while machine.deniers:
            ends.append(machine.reap())
        assert ends == ["killed by SIGKILL"] * TRIES_MAX
    machine.deny(domain, DESCRIPTORS)  # said again: tried again
    assert domain.soft(first, DESCRIPTORS) < 500
    machine.deny(domain, "")
    assert domain.soft(first, DESCRIPTORS) == 500


def test_who_forks_without_end_is_gone_through_so_often_and_no_more(domain: Domain, monkeypatch):
    passes: list[int] = []

    def lower(walk: Walk, change: object, pid: int, left: object) -> bool:
        passes.append(pid)
        return True

    monkeypatch.setattr(Walk, "_apply", lower)
    with pytest.raises(Unfinished, match=f"domain 7 forks faster than {PASSES_MAX} times through all of them"):
        Walk(domain.child, DESCRIPTORS, -1)._repeat(lambda pid, soft, hard: None)
    assert len(passes) == PASSES_MAX * len(domain.others())


def test_so_many_are_noted_and_no_more_are_hit(domain: Domain, monkeypatch):
    monkeypatch.setattr(shortages, "NOTES_MAX", 1)
    machine, (first, second) = Machine(), domain.others()
    machine.deny(domain, DESCRIPTORS)
    assert sorted((domain.soft(first, DESCRIPTORS) < 100, domain.soft(second, DESCRIPTORS) < 100)) == [False, True]
    machine.deny(domain, "")
    assert [domain.soft(pid, DESCRIPTORS) for pid in (first, second)] == [500, 600]


def test_of_a_domain_that_is_dead_no_file_is_left(domain: Domain):
    machine = Machine()
    machine.deny(domain, DESCRIPTORS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    machine.shortages.forget(domain.child)
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
