"""Processes that are no domains, beside which a pair is measured: they burn when told to, and leave nothing.

Each in an interpreter of its own, as `hvd bench` is: multiprocessing leaves a process running in whoever uses it.
"""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from hvd.toolstack.bench import strangers

CPU = min(os.sched_getaffinity(0))
DEADLINE_S = 280
WORK = """
import json, os, sys, time
import psutil
from hvd.toolstack.bench.strangers import Stranger
way, cpu = sys.argv[1], int(sys.argv[2])

def used(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system

def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)

with Stranger(way, cpu) as stranger:
    pid = stranger._pid
    assert os.sched_getaffinity(pid) == {cpu}
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    held = used(pid)
    stranger.go_on()
    wait_for(lambda: used(pid) > held + 0.05)
    stranger.hold()
    family = [pid, *(child.pid for child in psutil.Process(pid).children())]
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
print(json.dumps(family))
"""


LATE = """
import os, sys
from hvd.toolstack.bench import strangers
strangers.DEADLINE_S = 0.0
try:
    strangers.Stranger("walks", int(sys.argv[1]))
except strangers.HvdError as error:
    print(error)
"""


@pytest.mark.parametrize("way", [way for way in strangers.WAYS if way != "rests"])
def test_it_works_when_it_is_let_and_is_gone_at_the_end_with_all_its_children(way):
    for pid in json.loads(run(WORK, way)):
        wait_gone(pid)


def test_one_that_does_not_start_is_told_of():
    assert run(LATE) == "a process beside which to measure (walks) did not start within 0 s\n"


def run(script, *words):
    command = [sys.executable, "-c", script, *words, str(CPU)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def wait_gone(pid):
    """Its child dies of its death, a moment later."""
    until = time.monotonic() + DEADLINE_S
    while psutil.pid_exists(pid):
        assert time.monotonic() < until, f"{pid} is still there"
        time.sleep(0.01)
