"""A process's threads are where those are whom it works for, and are let go where they get no time there."""

import os
import subprocess
import sys

import pytest

CPUS = sorted(os.sched_getaffinity(0))
PRELUDE = f"""
import os, subprocess, sys, threading, time
from hvd.transport._native import CpuFollower
CPUS = {CPUS}

def affinities():
    return {{frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}}

def until(condition, work=lambda: None):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, (affinities(), follower.moves, follower.starved)
        work()

resting = threading.Event()
threading.Thread(target=resting.wait, daemon=True).start()
follower = CpuFollower()
first, last = follower.place(CPUS[:1]), follower.place(CPUS[-1:])
"""
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="it takes two CPUs")


def run(program: str) -> None:
    """In a process of its own, whose threads may be moved."""
    done = subprocess.run([sys.executable, "-P", "-c", PRELUDE + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_all_threads_but_the_one_that_looks_are_where_the_work_comes_from_and_go_free_when_there_is_none():
    run("""
until(lambda: affinities() == {frozenset(CPUS[:1]), frozenset(CPUS)}, lambda: follower.worked_for(first))
until(lambda: affinities() == {frozenset(CPUS)}, lambda: time.sleep(0.001))
assert follower.moves == 2 or follower.starved, follower.moves
""")


def test_whoever_is_worked_for_next_is_followed_too():
    run("""
until(lambda: frozenset(CPUS[:1]) in affinities(), lambda: follower.worked_for(first))
until(lambda: frozenset(CPUS[-1:]) in affinities(), lambda: follower.worked_for(last))
""")


def test_work_for_somebody_who_runs_anywhere_moves_nothing():
    run("""
end = time.monotonic() + 0.2
anywhere = follower.place([])
until(lambda: time.monotonic() > end, lambda: (follower.worked_for(anywhere), follower.worked_for(first)))
assert anywhere == 0 and follower.moves == 0
""")


def test_a_process_keeps_to_its_own_cpus_whoever_it_works_for():
    run("""
os.sched_setaffinity(0, CPUS[:1])
follower = CpuFollower()
assert follower.place(CPUS[-1:]) == 0
""")


def test_where_its_threads_get_no_time_they_are_let_go():
    """Whoever waits for one of them must not wait for those that crowd another's CPU."""
    run("""
spin = "import os; os.sched_setaffinity(0, [%d]); print(flush=True)\\nwhile True: pass" % CPUS[0]
crowd = [subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) for _ in range(16)]
try:
    for one in crowd:
        one.stdout.readline()
    until(lambda: follower.starved > 0, lambda: follower.worked_for(first))
    assert affinities() == {frozenset(CPUS)}
finally:
    for one in crowd:
        one.kill()
        one.communicate()
""")
