"""Every peer that hvd is measured beside: it answers, polled and woken; one that dies or is not there is no hang.

Each in an interpreter of its own, as `hvd bench` is: multiprocessing leaves a process running in whoever uses it.
"""

import os
import subprocess
import sys

import pytest

from hvd.toolstack.bench.peers.peer import Absent, How
from hvd.toolstack.bench.peers.table import DEALER_ROUTER, PYTHON, Field

ENDS = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
DEADLINE_S = 280
TURNS = """
import sys
from hvd.toolstack.bench.peers.peer import How
from hvd.toolstack.bench.peers.table import PYTHON, Field
from hvd.toolstack.bench.peers.zeromq import ZeroMqDealerRouter
name, how, *ends = sys.argv[1:]
field = Field(*map(int, ends))
field.add(name, How(how), PYTHON.get(name, ZeroMqDealerRouter))
assert field.figures == [], field.figures
for think_ns in (0, 1_000_000, 0):
    assert field.peers[name].times(10_000_000, think_ns).count > 0
field.close()
print("done")
"""
DEATH = """
import os, signal, sys
from hvd.toolstack.bench.peers import peer as peers, table
name, *ends = sys.argv[1:]
field = table.Field(*map(int, ends))
field.add(name, peers.How.WOKEN, table.PYTHON[name])
process = field.peers[name]._process
os.kill(process.pid, signal.SIGKILL)
process.join()
peers.ANSWERER_DEADLINE_S = 0.3
try:
    field.peers[name].times(10_000_000, 0)
except Exception as error:
    print(type(error).__name__)
field.close()
"""
SEGMENTS = """
import sys
from hvd.toolstack.bench.peers import peer as peers, table
name, *ends = sys.argv[1:]
field = table.Field(*map(int, ends))
field.add(name, peers.How.WOKEN, table.PYTHON[name])
print([line.rpartition("/dev/shm/psm_")[2].split()[1:] for line in open("/proc/self/maps") if "/dev/shm/psm_" in line])
field.close()
"""


def run(script, *words) -> str:
    command = [sys.executable, "-c", script, *words, *map(str, ENDS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("how", list(How))
@pytest.mark.parametrize("name", list(PYTHON))
def test_a_peer_makes_round_trips_in_several_turns(name, how):
    assert run(TURNS, name, how) == "done"


def test_what_hypercalls_go_over_is_a_peer_too():
    assert run(TURNS, DEALER_ROUTER, How.WOKEN) == "done"


def test_a_segment_of_shared_memory_has_no_name_that_could_outlive_both_ends():
    assert run(SEGMENTS, "shared_memory + semaphore") == "[['(deleted)']]"


@pytest.mark.parametrize("name", ["Unix socket", "pyzmq ipc"])
def test_an_answering_end_that_is_gone_is_no_hang(name):
    assert run(DEATH, name) in ("HvdError", "BrokenPipeError", "ConnectionResetError")


@pytest.mark.parametrize(("how", "expected"), [(How.POLLED, 1), (How.WOKEN, 2)])
def test_c_takes_part_in_what_it_is_the_floor_of(how, expected):
    field = Field(*ENDS)
    field.open(how, names=())
    assert len(field.peers) == expected
    assert all(each.times(5_000_000, 0).count > 0 for each in field.peers.values())
    field.close()


def test_a_peer_that_the_machine_lacks_is_a_row_that_says_so():
    def missing(how, here, there):
        raise Absent("it is not here")

    field = Field(*ENDS)
    field.add("nothing", How.WOKEN, missing)
    assert field.peers == {}
    (figure,) = field.figures
    assert (figure.name, figure.n, figure.note) == ("nothing", 0, "absent: it is not here")
    field.close()
