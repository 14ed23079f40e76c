"""Ends that are seen by threads: told when nothing of a process can run any more, and only then."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from hvd.machine import exits
from hvd.machine.children import Child
from hvd.machine.exits import THREADS_MAX, Exits, how_it_ended
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


def test_a_child_that_runs_on_keeps_its_parent_from_having_ended(monkeypatch):
    monkeypatch.setattr(exits, "_exit_code", lambda pid: (os.CLD_KILLED, signal.SIGKILL))
    monkeypatch.setattr(exits, "_all_are_exiting", lambda pid: True)
    monkeypatch.setattr(Child, "signal", lambda self, number: None)
    with child(then="import os; os.fork(); " + SLEEPS) as (made, _):
        wait_for(lambda: exits._has_children(made.pid), "its child")
        assert how_it_ended(made) is None
        for pid in map(int, exits._read(f"/proc/{made.pid}/task/{made.pid}/children").split()):
            os.kill(pid, signal.SIGKILL)


@needs_thread_pidfds
def test_a_thread_that_ends_alone_is_seen_once_and_its_process_lives():
    epoll = select.epoll()
    watched = Exits(epoll)
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
def test_so_many_threads_are_watched_once_and_forgotten_with_their_process():
    epoll = select.epoll()
    watched = Exits(epoll)
    with child(threads=2 * THREADS_MAX) as (made, _):
        before = open_descriptors()
        watched.follow(made, is_waited_for=False)
        watched.follow(made, is_waited_for=False)
        assert open_descriptors() == before + THREADS_MAX
        made.signal(signal.SIGKILL)
        wait_zombie(made)
        assert [watched.take(epoll.poll(10)[0][0])] == [made]
        watched.forget(made)
        assert open_descriptors() == before
        assert epoll.poll(0) == []


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
    watched = Exits(epoll)
    with child() as (made, _):
        watched.follow(made, is_waited_for=False)
        made.signal(signal.SIGKILL)
        wait_zombie(made)
        assert epoll.poll(0) == []
