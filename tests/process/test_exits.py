"""Deaths told before the kernel has taken the dead apart: nothing of the dead runs by then, and nobody else dies."""

import time
from collections.abc import Iterator
from pathlib import Path

from hvd import Cluster
from hvd.toolstack.cluster import Domain, EventStream
from hvd.transport.descendants import family
from hvd.transport.messages import DomainConfig, RestartPolicy
from tests.thread_pidfds import needs_thread_pidfds
from tests.waiting import wait_for

DEADLINE_S = 60.0
FOREVER = RestartPolicy(limit=0)
TRIES = 100
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


def wait_death(events: EventStream, domain: Domain) -> str:
    told = events.next_until(time.monotonic() + DEADLINE_S)
    while told is not None and (told.event, told.name) != ("died", domain.name):
        told = events.next_until(time.monotonic() + DEADLINE_S)
    assert told is not None
    return told.detail


def heavy_config(directory: Path, sandbox: str = "") -> DomainConfig:
    kernel = directory / "heavy.py"
    kernel.write_text(HEAVY)
    return DomainConfig("heavy", str(kernel), memory=1024, restart=FOREVER, sandbox=sandbox)


def deaths_told_early(config: DomainConfig, kills: int) -> Iterator[bool]:
    """For each kill, whether its process was there yet when its death was told."""
    with Cluster.build([config]) as cluster, cluster.events() as events:
        domain = cluster.domain(config.name)
        for _ in range(kills):
            domain.wait_ready()
            pid = domain.pid
            domain.kill()
            assert wait_death(events, domain) == "killed by SIGKILL"
            yield Path(f"/proc/{pid}").exists()


@needs_thread_pidfds
def test_a_death_is_told_while_the_memory_of_the_dead_is_still_there(tmp_path):
    """On a busy host its first thread may be the last to hear that it is dead: then it is not."""
    assert any(deaths_told_early(heavy_config(tmp_path), TRIES))


def test_the_death_of_one_for_whom_the_kernel_may_still_write_is_told_when_all_of_it_is_gone(tmp_path):
    assert not any(deaths_told_early(heavy_config(tmp_path, "program"), 3))


def test_a_domain_that_loses_threads_lives(tmp_path):
    kernel = tmp_path / "loses.py"
    kernel.write_text(LOSES_THREADS)
    with Cluster.build([DomainConfig("loses", str(kernel))]) as cluster:
        domain = cluster.domain("loses")
        domain.wait_ready()
        wait_for(lambda: domain.console_log().count("alone") >= 10, lambda: f"its words: {domain.info()}")
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
