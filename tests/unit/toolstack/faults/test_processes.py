"""What the kernel says of processes."""

import os
import threading

from hvd.toolstack.faults.processes import threads


def test_each_thread_of_a_process_is_told_by_its_name_and_state():
    over = threading.Event()
    sleeper = threading.Thread(target=over.wait)
    sleeper.start()
    try:
        told = threads(os.getpid())
    finally:
        over.set()
        sleeper.join()
    assert len(told) >= 2
    assert all(len(line.split()[1]) == 1 for line in told)


def test_a_process_that_is_not_there_has_none():
    assert threads(0) == []
