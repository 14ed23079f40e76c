"""The machine's children: how each ended, in words, and which there are."""

import os
import signal
from contextlib import suppress

import pytest

from hvd.machine.children import Child, child_pids, describe_end


@pytest.fixture
def child():
    """A child process that waits to be ended."""
    made = []

    def fork(status=None):
        pid = os.fork()
        if pid == 0:
            if status is not None:
                os._exit(status)
            while True:
                signal.pause()
        made.append(Child("domain", pid, 3, 1))
        return made[-1]

    yield fork
    for one in made:
        one.signal(signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(one.pid, 0)
        os.close(one.pidfd)


def reaped(child):
    """How it ended, once it has."""
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    return child.reap()


@pytest.mark.parametrize(("code", "status", "words"), [
    (os.CLD_EXITED, 0, "exited with status 0 without a shutdown hypercall"),
    (os.CLD_EXITED, 3, "exited with status 3 without a shutdown hypercall"),
    (os.CLD_KILLED, signal.SIGKILL, "killed by SIGKILL"),
    (os.CLD_DUMPED, signal.SIGSEGV, "killed by SIGSEGV"),
    (os.CLD_EXITED, 128 + signal.SIGBUS, "killed by SIGBUS"),
    (os.CLD_EXITED, 255, "killed by signal 127"),
    (os.CLD_KILLED, 40, "killed by signal 40"),
])
def test_an_end_is_put_in_words(code, status, words):
    assert describe_end(code, status) == words


def test_a_child_that_was_killed_says_so(child):
    one = child()
    one.signal(signal.SIGTERM)
    assert reaped(one) == "killed by SIGTERM"


def test_a_child_that_exited_says_so(child):
    assert reaped(child(7)) == "exited with status 7 without a shutdown hypercall"


def test_reaping_a_child_that_lives_is_nothing_and_does_not_wait(child):
    one = child()
    assert one.reap() is None
    one.signal(0)


def test_a_signal_to_a_child_that_is_gone_is_nothing(child):
    one = child(0)
    reaped(one)
    one.signal(signal.SIGKILL)


def test_children_are_found_without_having_been_told_of_living_and_dead(child):
    living, dead = child(), child(0)
    os.waitid(os.P_PIDFD, dead.pidfd, os.WEXITED | os.WNOWAIT)
    assert {living.pid, dead.pid} <= child_pids()
    reaped(dead)
    assert dead.pid not in child_pids()
    assert os.getpid() not in child_pids()
