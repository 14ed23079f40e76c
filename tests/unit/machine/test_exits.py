"""Ends that are seen by threads: told when nothing of a process can run any more, and only then."""

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.machine import exits
from hvd.machine.children import Child
from hvd.machine.exits import GIVES_WAY_NICE, THREADS_MAX, TOLD_AFTER_S, WAITED_FOR_MAX, Exits, comes_back, how_it_ended
from tests.thread_pidfds import needs_thread_pidfds
from tests.waiting import wait_for

THREADED = """
import sys, threading, time
threads = [threading.Thread(target=lambda: sys.stdin.readline(), daemon=True)]
threads += [threading.Thread(target=time.sleep, args=(1000,), daemon=True) for _ in range(int(sys.argv[1]) - 1)]
for thread in threads:
    thread.start()
print("there", flush=True)
{then}
"""
SLEEPS = "time.sleep(1000)"


def nobody(message):
    """Hears what the broker is to be told."""


@contextlib.contextmanager
def child(threads=2, then=SLEEPS):
    """One that has said that its threads are there; reaped and gone afterwards."""
    command = [sys.executable, "-c", THREADED.format(then=then), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        made = Child("domain", process.pid, 1, 1)
        try:
            yield made, process
        finally:
            os.close(made.pidfd)
            process.kill()


def wait_zombie(made):
    """Dead, all its threads gone, and not reaped."""
    assert select.select([made.pidfd], [], [], 10)[0]


def lives(made):
    time.sleep(0.05)
    return not made.is_over()


@needs_thread_pidfds
def test_a_thread_that_the_host_lets_nobody_watch_is_not_and_who_has_it_is_forgotten_as_anybody():
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # fs.epoll.max_user_watches

    with select.epoll() as epoll, child() as (made, _):
        ends = Exits(SimpleNamespace(register=refuse, unregister=epoll.unregister), lambda child: None, nobody)  # type: ignore[arg-type]
        before = open_descriptors()
        ends.follow(made, is_waited_for=True)
        ends.forget(made)
        assert open_descriptors() == before


def test_who_lives_has_not_ended_and_goes_on():
    with child() as (made, _):
        assert how_it_ended(made) is None
        assert lives(made)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_was_killed_is_told_of_by_the_signal(number):
    with child() as (made, _):
        made.signal(number)
        wait_zombie(made)
        assert how_it_ended(made) == f"killed by {number.name}"


def test_an_exit_status_is_told_as_the_reaping_tells_it():
    with child(then="import os; os._exit(3)") as (made, _):
        wait_zombie(made)
        assert how_it_ended(made) == "exited with status 3 without a shutdown hypercall" == made.reap()


def test_who_ended_well_is_left_to_the_reaping():
    with child(then="import os; os._exit(0)") as (made, _):
        wait_zombie(made)
        assert how_it_ended(made) is None


def test_who_is_stopped_has_not_ended_and_can_go_on():
    with child() as (made, _):
        made.signal(signal.SIGSTOP)
        wait_for(lambda: exits._stat(f"/proc/{made.pid}/stat")[0] == b"T", "it to stand")
        assert how_it_ended(made) is None
        made.signal(signal.SIGCONT)
        assert lives(made)


def test_a_thread_that_runs_on_keeps_its_process_from_having_ended(monkeypatch):
    monkeypatch.setattr(exits, "_exit_code", lambda pid: (os.CLD_KILLED, signal.SIGKILL))
    monkeypatch.setattr(Child, "signal", lambda self, number: None)
    with child() as (made, _):
        assert how_it_ended(made) is None


def test_a_thread_that_has_not_ended_in_a_moment_comes_soon_and_one_that_has_is_left_alone(monkeypatch):
    """Whose CPU it is to have is ours until we sleep."""
    done: list[object] = []
    looks = iter([False, True, False, True, True, True])  # of two threads each time
    monkeypatch.setattr(exits, "_threads", lambda pid: [10, 11])
    monkeypatch.setattr(exits, "_is_exiting", lambda pid, tid: next(looks))
    monkeypatch.setattr(exits, "run_in_short_slices", done.append)
    monkeypatch.setattr(time, "sleep", lambda seconds: done.append("sleeps"))
    assert exits._all_are_exiting(10)
    assert done == ["sleeps", 10, "sleeps"]


def test_a_child_that_runs_on_keeps_its_parent_from_having_ended(monkeypatch):
    monkeypatch.setattr(exits, "_exit_code", lambda pid: (os.CLD_KILLED, signal.SIGKILL))
    monkeypatch.setattr(exits, "_all_are_exiting", lambda pid, patience_s: True)
    monkeypatch.setattr(Child, "signal", lambda self, number: None)
    with child(then="import os; os.fork(); " + SLEEPS) as (made, _):
        wait_for(lambda: exits._has_children(made.pid), "its child")
        assert how_it_ended(made) is None
        for pid in map(int, exits._read(f"/proc/{made.pid}/task/{made.pid}/children").split()):
            os.kill(pid, signal.SIGKILL)


@needs_thread_pidfds
def test_a_thread_that_ends_alone_is_seen_once_and_its_process_lives():
    epoll = select.epoll()
    watched = Exits(epoll, lambda child: None, nobody)
    with child() as (made, process):
        watched.follow(made, is_waited_for=False)
        process.stdin.write(b"\n")
        process.stdin.flush()
        ((descriptor, _),) = epoll.poll(10)
        assert [watched.take(descriptor), watched.take(descriptor)] == [made, None]
        assert how_it_ended(made) is None
        assert lives(made)
        watched.forget(made)


@needs_thread_pidfds
@pytest.mark.parametrize(("is_waited_for", "most"), [(False, THREADS_MAX), (True, WAITED_FOR_MAX)])
def test_so_many_threads_are_watched_once_and_forgotten_with_their_process(is_waited_for, most):
    epoll = select.epoll()
    watched = Exits(epoll, lambda child: None, nobody)
    with child(threads=2 * WAITED_FOR_MAX) as (made, _):
        before = open_descriptors()
        watched.follow(made, is_waited_for=is_waited_for)
        watched.follow(made, is_waited_for=is_waited_for)
        assert open_descriptors() == before + most
        made.signal(signal.SIGKILL)
        wait_zombie(made)
        assert [watched.take(epoll.poll(10)[0][0])] == [made]
        watched.forget(made)
        assert open_descriptors() == before
        assert epoll.poll(0) == []


def test_who_ends_and_has_not_ended_is_looked_at_again_ever_less_often_until_it_has(monkeypatch):
    """A thread may wait for a CPU, or a disk; and when all of its memory is gone may be a second later."""
    clock, asked = SimpleNamespace(now=100.0), list[float]()
    answers = iter([None] * 8 + ["killed by SIGKILL"])
    monkeypatch.setattr(exits, "time", SimpleNamespace(monotonic=lambda: clock.now, monotonic_ns=lambda: 0))
    monkeypatch.setattr(exits, "is_ending", lambda child: True)

    def look(child, patience_s):
        asked.append(clock.now)
        return next(answers)

    monkeypatch.setattr(exits, "how_it_ended", look)
    late: list[Any] = []
    watched = Exits(select.epoll(), late.append, nobody)
    ending: Any = SimpleNamespace(pid=10, role="domain")
    assert watched.how_it_ended(ending) is None
    while (at := watched.deadline()) is not None:
        watched.expire(at - 0.001)
        assert asked[-1] < at - 0.001, "not sooner"
        clock.now = at
        watched.expire(at)
        assert watched.deadline() is None, "whether it is looked at again is for whoever is told"
        watched.how_it_ended(late.pop())
    waits = [round(later - earlier, 4) for earlier, later in pairwise(asked)]
    assert waits == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16]


@pytest.mark.parametrize("ends", [True, False])
def test_who_has_been_reaped_or_does_not_end_is_not_looked_at_again(monkeypatch, ends):
    monkeypatch.setattr(exits, "how_it_ended", lambda child, patience_s: None)
    monkeypatch.setattr(exits, "is_ending", lambda child: ends)
    watched = Exits(select.epoll(), lambda child: None, nobody)
    one: Any = SimpleNamespace(pid=10, role="stray")
    watched.how_it_ended(one)
    assert (watched.deadline() is not None) is ends
    watched.forget(one)
    assert watched.deadline() is None


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as many as there are


def test_a_kernel_without_pidfds_of_threads_leaves_all_to_the_reaping(monkeypatch):
    real = os.pidfd_open

    def old(pid, flags=0):
        if flags:
            raise OSError(22, "Invalid argument")
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", old)
    epoll = select.epoll()
    watched = Exits(epoll, lambda child: None, nobody)
    with child() as (made, _):
        watched.follow(made, is_waited_for=False)
        made.signal(signal.SIGKILL)
        wait_zombie(made)
        assert epoll.poll(0) == []


OWN_NICE = os.getpriority(os.PRIO_PROCESS, 0)


def niceness(made):
    return {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path(f"/proc/{made.pid}/task").iterdir()}


def test_what_is_left_of_the_dead_gives_way_for_a_moment_and_no_longer():
    """Here it is one that lives, so that it is there to be asked."""
    if not comes_back():
        pytest.skip("who gives way here does so for good")
    watched = Exits(select.epoll(), lambda child: None, nobody)
    with child() as (made, _):
        assert watched.deadline() is None
        watched.let_give_way(made)
        assert niceness(made) == {OWN_NICE + GIVES_WAY_NICE}
        until = watched.deadline()
        assert until is not None
        watched.expire(until - 0.001)
        assert niceness(made) == {OWN_NICE + GIVES_WAY_NICE}
        watched.expire(until)
        assert niceness(made) == {OWN_NICE}
        assert watched.deadline() is None


UNPRIVILEGED = """
import os, select, signal
from hvd.machine.children import Child
from hvd.machine.exits import Exits
if (pid := os.fork()) == 0:
    signal.pause()
watched = Exits(select.epoll(), lambda child: None, print)
watched.let_give_way(Child("domain", pid))
watched.expire(float("inf"))
print(os.getpriority(os.PRIO_PROCESS, pid) - os.getpriority(os.PRIO_PROCESS, 0), watched.deadline())
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""


def test_where_the_kernel_lets_nobody_come_back_nobody_gives_way():
    """As without root, and with it in most containers."""
    command = [sys.executable, "-c", UNPRIVILEGED]
    if os.geteuid() == 0:
        command = ["setpriv", "--inh-caps=-sys_nice", "--bounding-set=-sys_nice", *command]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    assert done.stdout.split() == ["0", "None"]


def test_who_has_been_reaped_gives_way_to_nobody_any_more():
    watched = Exits(select.epoll(), lambda child: None, nobody)
    with child() as (made, process):
        process.kill()
        process.wait()
        watched.let_give_way(made)
        made.role = "stray"
        watched.forget(made)
        assert watched.deadline() is None


# ---- when it was known -----------------------------------------------------------------------------------------------


def told_of(watched, told):
    """What `tell` has heard when the time for it has come, and that it hears nothing sooner."""
    at = watched.deadline()
    assert at is not None
    watched.expire(at - 0.001)
    assert told == []
    watched.expire(at)
    assert watched.deadline() is None
    return told


@needs_thread_pidfds
def test_when_an_end_was_suspected_fenced_and_reaped_is_told_a_while_after_the_reap():
    epoll, told = select.epoll(), list[Any]()
    watched = Exits(epoll, lambda child: None, told.append)
    with child(threads=3) as (made, process):
        watched.follow(made, is_waited_for=True)
        before = time.monotonic_ns()
        made.signal(signal.SIGKILL)
        assert [watched.take(epoll.poll(10)[0][0])] == [made]
        suspected = time.monotonic_ns()
        wait_for(lambda: watched.how_it_ended(made), "its fence")
        fenced = time.monotonic_ns()
        made.role = "remains"
        process.wait()
        watched.forget(made)
        reaped = time.monotonic_ns()
        told_at = watched.deadline()
        assert told_at is not None
        assert fenced / 1e9 < told_at - TOLD_AFTER_S <= reaped / 1e9
    ((verb, domid, incarnation, name, *moments),) = told_of(watched, told)
    assert (verb, domid, incarnation, name) == ("reaped", 1, 1, "")
    assert before < moments[0] <= suspected < moments[1] <= fenced < moments[2] <= reaped


def test_whose_threads_nobody_saw_was_suspected_and_fenced_when_it_was_reaped():
    told = list[Any]()
    watched = Exits(select.epoll(), lambda child: None, told.append)
    watched.forget(Child("zygote", os.getpid()))
    watched.forget(Child("stray", os.getpid()))
    ((_, domid, _, name, suspected, fenced, reaped),) = told_of(watched, told)
    assert (domid, name) == (-1, "zygote")
    assert suspected == fenced == reaped


@needs_thread_pidfds
def test_a_thread_that_ended_alone_is_no_suspicion_of_the_end_that_comes_later():
    epoll, told = select.epoll(), list[Any]()
    watched = Exits(epoll, lambda child: None, told.append)
    with child() as (made, process):
        watched.follow(made, is_waited_for=False)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert [watched.take(epoll.poll(10)[0][0])] == [made]
        assert watched.how_it_ended(made) is None
        later = time.monotonic_ns()
        process.kill()
        process.wait()
        watched.forget(made)
    ((*_, suspected, _, _),) = told_of(watched, told)
    assert suspected > later


def test_of_those_before_a_reboot_nothing_is_told_behind_it():
    watched = Exits(select.epoll(), lambda child: None, nobody)
    watched.forget(Child("domain", os.getpid(), 1, 1))
    watched.clear()
    assert watched.deadline() is None
