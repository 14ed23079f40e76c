"""How a program's end is told, and that of whoever has lost his parent."""

from __future__ import annotations

import os
import signal

import pytest

from hvd.domains.program.init import REAPED_MAX, Init, describe


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exited with status 1"),
        (127, "exited with status 127"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-35, "was killed by signal 35"),
    ],
)
def test_a_status_and_a_signal_are_told_apart(code: int, text: str) -> None:
    assert describe(code) == text


def test_a_storm_of_deaths_is_reaped_in_parts() -> None:
    init = Init({"kernel": "/bin/true"})
    for _ in range(REAPED_MAX + 1):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert init._reap()
    assert not init._reap()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
