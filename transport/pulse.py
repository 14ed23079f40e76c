"""A pulse: a word in a page that one process and the machine share.

It moves for as long as the process comes back to its loop, and costs it one store each time.
"""

from __future__ import annotations

import mmap

BEAT_EVERY_S = 0.5
"""A loop that has nothing to do comes round this often."""


class Pulse:
    """Made before the fork, so that both have it. Whoever is forked from the process afterwards does not."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._page).cast("Q")

    def keep_from_children(self) -> None:
        """What this process forks is none of the machine's business, and must not be able to write here."""
        self._page.madvise(mmap.MADV_DONTFORK)

    def beat(self) -> None:
        """The process is at work."""
        self._words[0] += 1

    @property
    def beats(self) -> int:
        """How often it has been so far."""
        return self._words[0]

    def close(self) -> None:
        """Unmap our half."""
        self._words.release()
        self._page.close()
