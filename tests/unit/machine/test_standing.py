"""Whoever started a machine lets go of it, or ends and has it end too; in processes that are signalled for it."""

import signal
import subprocess
import sys

import pytest

from hvd.transport.run_dir import LET_GO

FOLLOWS = """
import os, select, signal
from hvd.machine import standing

class Interrupted:
    '''A poll in the middle of which the next signal comes, once.'''

    def __init__(self):
        self.real, self.calls = POLL(), 0
        self.register = self.real.register

    def poll(self, timeout):
        found, self.calls = self.real.poll(timeout), self.calls + 1
        if found and self.calls == 1 and INTERRUPTED:
            signal.getsignal(signal.SIGIO)(signal.SIGIO, None)
        return found

POLL, select.poll = select.poll, Interrupted
ours, theirs = os.pipe()
os.write(theirs, SAID)
os.close(theirs)
standing.follow_owner(ours)
print("lives")
"""


def ended(said: bytes, *, interrupted: bool) -> tuple[int, str]:
    script = f"SAID, INTERRUPTED = {said!r}, {interrupted}\n{FOLLOWS}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("interrupted", [False, True])
def test_who_is_let_go_lives_however_close_upon_it_the_pipe_is_closed(interrupted):
    assert ended(LET_GO, interrupted=interrupted) == (0, "lives")


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("said", [b"", b"?"])
def test_who_is_not_let_go_ends_with_its_owner(said, interrupted):
    assert ended(said, interrupted=interrupted) == (-signal.SIGTERM, "")
