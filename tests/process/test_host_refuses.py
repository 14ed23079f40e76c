"""A host that has no room for what the hypervisor needs ends neither it nor a domain, and it goes on when there is."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig, StoreWrite
from tests.waiting import wait_for

DEADLINE_S = 60.0
FEW_BYTES = 1 << 20
"""Of a file: less than any journal has."""
CALLS = 40
"""More than are replayed rather than kept by a snapshot while nobody asks for anything."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build([DomainConfig("guest", "hvd:idle")]) as made:
        made.domain("guest").wait_ready(DEADLINE_S)
        yield made


def log_of(cluster: Cluster) -> str:
    path = cluster.run_dir / "log" / "broker.log"
    return path.read_text() if path.exists() else ""


def test_a_broker_that_may_write_no_snapshot_goes_on_says_so_and_its_successor_has_everything(cluster: Cluster) -> None:
    guest, broker = cluster.domain("guest"), cluster.info()["broker_pid"]
    _, hard = resource.prlimit(broker, resource.RLIMIT_FSIZE)
    resource.prlimit(broker, resource.RLIMIT_FSIZE, (FEW_BYTES, hard))
    for _ in range(CALLS):
        guest.pause()
        guest.unpause()
    said = "no snapshot of the journal: the host refuses it: File too large"
    wait_for(lambda: said in log_of(cluster), lambda: log_of(cluster))
    guest.pause()
    assert cluster.info()["broker_pid"] == broker
    os.kill(broker, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != broker)
    assert guest.state is DomainState.PAUSED


def test_a_death_where_nothing_can_be_noted_ends_neither_domain_0_nor_the_machine(cluster: Cluster) -> None:
    """Domain 0 has its part in it: it closes the console's port, by a hypercall that changes something."""
    guest, broker = cluster.domain("guest"), cluster.info()["broker_pid"]
    _, hard = resource.prlimit(broker, resource.RLIMIT_FSIZE)
    resource.prlimit(broker, resource.RLIMIT_FSIZE, (FEW_BYTES, hard))

    def ports() -> int:
        return int(next(row["quotas"]["event channels"][0] for row in cluster.quotas() if row["domid"] == 0))

    wait_for(lambda: (0, guest.domid) in [(row["domid"], row["remote_domid"]) for row in cluster.event_channels()])
    before = ports()
    with pytest.raises(HypercallError, match="the host refuses its journal"):
        while True:
            cluster.call(StoreWrite(0, "/full/1", b"x" * 3000))
    guest.kill()
    guest.destroy()
    wait_for(lambda: ports() < before)
    assert (cluster.domain("Domain-0").restarts, cluster.info()["broker_pid"]) == (0, broker)
    os.kill(broker, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != broker)
    assert [domain.domid for domain in cluster.domains()] == [0]
    cluster.call(StoreWrite(0, "/full/1", b"again"))


FULL = """
import os, signal, sys, time
from pathlib import Path
from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.messages import DomainConfig

FULL, DEADLINE_S, COUNTING = Path(sys.argv[1]), 60, sys.argv[2]

def until(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            empty()
            raise AssertionError(f'{what} never came: ' + (FULL / 'log/broker.log').read_text()[-4000:])
        time.sleep(0.01)

def fill():
    '''So many files that there can be no other.'''
    for number in range(10_000):
        try:
            (FULL / f'filler.{number}').touch()
        except OSError:
            return

def empty():
    for filler in FULL.glob('filler.*'):
        filler.unlink()

counter = DomainConfig('counter', COUNTING)
spare = DomainConfig('disks', 'hvd:driver_domain', driver_domain=True, spare=True)
with Cluster.build([counter, spare], run_dir=FULL) as cluster:
    guest, disks = cluster.domain('counter'), cluster.domain('disks')
    guest.wait_ready(DEADLINE_S)
    until(lambda: disks.info().spare == 'stands by', 'a spare')
    until(lambda: (FULL / 'log/broker.log').exists(), 'the log')
    pids, broker = (guest.pid, disks.pid), cluster.info()['broker_pid']
    fill()
    os.kill(broker, signal.SIGKILL)
    said = lambda text: text in (FULL / 'log/broker.log').read_text()
    until(lambda: said('domain counter cannot be taken over: the host refuses: No space left on device.'), 'a refusal')
    until(lambda: said(f'make room in {FULL}'), 'what to do')
    until(lambda: said('it could not be taken over: the host refused: No space left on device'), 'the end of the spare')
    second = cluster.info()['broker_pid']
    assert second != broker and (guest.pid, disks.pid) == pids, 'nobody dies of it, nor a broker again'
    empty()
    until(lambda: said('taken over at last'), 'another try')
    count = lambda: cluster.call(m.StoreRead(0, '/local/domain/1/data/count'))
    seen = count()
    until(lambda: count() != seen, 'an answer')
    assert cluster.info()['broker_pid'] == second and (guest.pid, disks.pid) == pids
print('went on')
"""
COUNTING = """
import time

def main(guest):
    for count in range(10**9):
        guest.runtime.store.write('data/count', count)
        time.sleep(0.05)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="nobody else may mount a file system")
def test_domains_for_whose_sockets_there_is_no_room_live_on_and_are_taken_over_when_there_is(tmp_path: Path) -> None:
    """The run directory is a file system of so many files, in a mount namespace of the test's own."""
    full, counting = tmp_path / "full", tmp_path / "counting.py"
    full.mkdir()
    counting.write_text(COUNTING)
    mount = f"mount -t tmpfs -o nr_inodes=120,mode=0700 hvd-test {full}"
    alone = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    done = subprocess.run(
        [*alone, sys.executable, "-P", "-c", FULL, full, counting], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
