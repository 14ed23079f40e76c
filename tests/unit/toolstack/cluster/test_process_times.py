"""What the kernel says of a process, asked of ourselves and of nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from hvd.toolstack.cluster.process_times import ProcessTimes, is_stopped, process_times
from hvd.transport.descendants import family


def test_we_run_on_one_of_our_cpus_and_have_used_time():
    times = process_times(os.getpid())
    assert times.running
    assert times.cpu in range(os.cpu_count() or 1)
    assert times.seconds > 0


def test_a_process_that_sleeps_does_not_run():
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        while process_times(child.pid).running:  # between its line and its sleep
            pass
        child.stdin.close()


def test_whoever_is_stopped_or_gone_runs_nothing():
    assert not is_stopped(os.getpid())
    assert is_stopped(None)
    assert is_stopped(2**22 + 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert is_stopped(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_stopped(child.pid)


def test_nobody_has_used_nothing():
    assert process_times(None) == process_times(2**22 + 1) == ProcessTimes()


SPENDS = """
import os, time
os.fork() or os.fork()
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
print(flush=True)
time.sleep(1000)
"""


def test_the_time_of_all_that_descend_from_a_process_is_its():
    with subprocess.Popen([sys.executable, "-c", SPENDS], stdout=-1) as child:
        assert child.stdout is not None
        for _ in range(3):
            child.stdout.readline()
        members = family(child.pid)
        assert members[0] == child.pid and len(members) == 3
        assert process_times(child.pid).seconds >= 0.5
        for member in members[::-1]:
            os.kill(member, 9)
