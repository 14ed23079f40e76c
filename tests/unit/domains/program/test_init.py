"""How a program's end is told."""

from __future__ import annotations

import signal

import pytest

from hvd.domains.program.init import describe


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
