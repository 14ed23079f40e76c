"""Room for a connection: kept from whoever uses up all there is, and there when it is given up."""

import subprocess
import sys

PRELUDE = """
import mmap, os, resource
from hvd.domains.connection_room import KEPT, MEMORY_BYTES, ConnectionRoom

def until_refused(take):
    taken = []
    while True:
        try:
            taken.append(take())
        except OSError:
            return taken

def pages(field):
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[field])

RESIDENT, DATA = 1, 5
"""


def run(program: str) -> None:
    """In a process of its own, whose limits are its own."""
    done = subprocess.run([sys.executable, "-P", "-c", PRELUDE + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_descriptors_are_there_for_whoever_has_used_up_all_others():
    run("""
resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
room = ConnectionRoom()
assert len(until_refused(lambda: os.dup(0))) > 50
room.give_up()
assert len(until_refused(lambda: os.dup(0))) == KEPT[resource.RLIMIT_NOFILE]
""")


def test_threads_are_kept_below_the_soft_limit_and_given_back():
    run("""
resource.setrlimit(resource.RLIMIT_NPROC, (60, 64))
room = ConnectionRoom()
assert resource.getrlimit(resource.RLIMIT_NPROC) == (60 - KEPT[resource.RLIMIT_NPROC], 64)
room.give_up()
assert resource.getrlimit(resource.RLIMIT_NPROC) == (60, 64)
""")


def test_memory_is_there_for_whoever_has_used_up_all_other():
    run("""
most = pages(DATA) * mmap.PAGESIZE + 2 * MEMORY_BYTES
resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
room = ConnectionRoom()
taken = until_refused(lambda: mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
room.give_up()
mmap.mmap(-1, MEMORY_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
""")


def test_it_takes_no_pages():
    run("""
before = pages(RESIDENT)
room = ConnectionRoom()
assert (pages(RESIDENT) - before) * mmap.PAGESIZE < MEMORY_BYTES // 10
""")


def test_a_hard_limit_that_was_lowered_meanwhile_holds():
    run("""
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
room = ConnectionRoom()
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))
room.give_up()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (60, 60)
""")
