"""Deaths that are told before the kernel has taken the dead apart: nothing of the dead runs by then, and nobody else dies."""

import os
import time
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cluster import Domain, EventStream
from hvd.transport.descendants import family
from hvd.transport.messages import DomainConfig, RestartPolicy
from hvd.transport.process import PIDFD_THREAD

DEADLINE_S = 60.0
FOREVER = RestartPolicy(limit=0)
TRIES = 20
HEAVY = """
AUTO_READY = False


def main(guest):
    weight = bytearray(b"x") * (400 << 20)
    guest.ready()
    guest.run_forever()
"""
LOSES_THREADS = """
import threading

AUTO_READY = False


def main(guest):
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    guest.ready()
    end.set()
    for thread in threads:
        thread.join()
    while True:
        print("alone")
        guest.wait(0.01)
"""


def kernel_has_pidfds_of_threads() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid(), PIDFD_THREAD))
    except OSError:
        return False
    return True


def wait_death(events: EventStream, domain: Domain) -> str:
    told = events.next_until(time.monotonic() + DEADLINE_S)
    while told is not None and (told.event, told.name) != ("died", domain.name):
        told = events.next_until(time.monotonic() + DEADLINE_S)
    assert told is not None
    return told.detail


@pytest.mark.skipif(not kernel_has_pidfds_of_threads(), reason="Linux 6.9 brought the pidfd of a thread")
def test_a_death_is_told_while_the_memory_of_the_dead_is_still_there(tmp_path):
    kernel = tmp_path / "heavy.py"
    kernel.write_text(HEAVY)
    with Cluster.build([DomainConfig("heavy", str(kernel), memory=1024, restart=FOREVER)]) as cluster:
        heavy = cluster.domain("heavy")
        with cluster.events() as events:
            for _ in range(TRIES):  # on a busy host its first thread may be the last to hear that it is dead
                heavy.wait_ready()
                pid = heavy.pid
                heavy.kill()
                assert wait_death(events, heavy) == "killed by SIGKILL"
                if Path(f"/proc/{pid}").exists():
                    return
    raise AssertionError(f"in {TRIES} kills nobody was told before the kernel had done")


def test_a_domain_that_loses_threads_lives(tmp_path):
    kernel = tmp_path / "loses.py"
    kernel.write_text(LOSES_THREADS)
    with Cluster.build([DomainConfig("loses", str(kernel))]) as cluster:
        domain = cluster.domain("loses")
        domain.wait_ready()
        until = time.monotonic() + DEADLINE_S
        while domain.console_log().count("alone") < 10:
            assert time.monotonic() < until, domain.info()
            time.sleep(0.01)
        assert (domain.state, domain.incarnation) == ("running", 1)


def test_a_program_and_its_children_have_ended_when_the_death_of_their_init_is_told():
    script = "while :; do :; done & while :; do :; done & while :; do sleep 0.01; done"
    with Cluster.build([DomainConfig("shell", "/bin/sh", args=["-c", script], restart=FOREVER)]) as cluster:
        shell = cluster.domain("shell")
        with cluster.events() as events:
            for _ in range(3):
                shell.wait_ready()
                pids = family(shell.pid)
                shell.kill()
                wait_death(events, shell)
                assert [pid for pid in pids if runs(pid)] == []


def runs(pid: int) -> bool:
    """Whether it can run a program yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return not int(stat[6]) & 0x4
