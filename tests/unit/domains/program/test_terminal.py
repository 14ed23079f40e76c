"""What of a program's terminal is read when the program has ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvd.domains.guest import Guest
from hvd.domains.program.terminal import CHUNK_BYTES, LAST_WORDS_BYTES_MAX, Terminal


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """(what is read, what is written), as of a terminal."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


class Console:
    """Takes all; whoever prints has printed as much again by then, if `survives`."""

    waiting = 0

    def __init__(self, write: int, *, survives: bool) -> None:
        self._write = write
        self._survives = survives
        self.taken = 0

    def put(self, data: bytes) -> int:
        self.taken += len(data)
        assert self.taken <= LAST_WORDS_BYTES_MAX + CHUNK_BYTES, "it reads without end"
        if self._survives:
            os.write(self._write, data)
        return 0


def finish(ends: tuple[int, int], *, survives: bool) -> int:
    """How many bytes were printed."""
    read, write = ends
    console = Console(write, survives=survives)
    runtime = SimpleNamespace(system_time_ns=lambda: 0, watch_fd=lambda *_: None)
    guest: Any = SimpleNamespace(console=console, runtime=runtime)
    os.write(write, bytes(2 * CHUNK_BYTES + 1))
    Terminal(cast(Guest, guest), read).finish()
    return console.taken


def test_a_programs_last_words_are_all_printed(ends: tuple[int, int]) -> None:
    assert finish(ends, survives=False) == 2 * CHUNK_BYTES + 1


def test_who_survives_a_program_and_prints_without_end_does_not_keep_its_domain(ends: tuple[int, int]) -> None:
    assert finish(ends, survives=True) >= LAST_WORDS_BYTES_MAX
