"""What a process asks of the kernel for itself: a thread that does nothing but end with it."""

import subprocess
import sys

PRELUDE = """
import os, resource, signal
from hvd.transport.process import start_sleeper

def threads():
    return len(os.listdir("/proc/self/task"))
"""


def run(program: str) -> None:
    """In a process of its own."""
    command = [sys.executable, "-P", "-c", PRELUDE + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_sleeper_is_one_thread_more_and_its_process_ends_without_waiting_for_it():
    run("""
start_sleeper()
assert threads() == 2
""")


def test_signals_are_for_the_threads_that_run_a_program():
    run("""
signal.signal(signal.SIGTERM, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
start_sleeper()
os.kill(os.getpid(), signal.SIGTERM)
assert signal.sigtimedwait({signal.SIGTERM}, 30).si_pid == os.getpid()
""")


def test_whoever_starts_one_has_his_signals_as_before():
    run("""
before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
start_sleeper()
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGUSR1}
""")


def test_where_there_is_no_thread_to_be_had_there_is_none():
    run("""
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
start_sleeper()
assert threads() == 1
""")
