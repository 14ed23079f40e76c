"""What a process of its own says, for tests of what happens to the process that it happens in."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress

WALL = 0x40000000
"""__WALL of wait(2): children that send no SIGCHLD too."""


def words_of(run: Callable[[Callable[[str], None]], None]) -> str:
    """All that `run` tells in a fork whose siblings are our children, or what it raised; all of them have ended."""
    read, write = os.pipe()

    def tell(words: str) -> None:
        os.write(write, words.encode())

    if os.fork() == 0:
        try:
            run(tell)
        except BaseException:  # noqa: BLE001 - the top of a process: the test says what became of it
            tell(traceback.format_exc())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as words:
        told = words.read()
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, WALL)
    return told
