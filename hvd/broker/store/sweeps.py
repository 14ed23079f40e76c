"""Changes of many nodes at once: the tree has changed already, all that follows does so a few nodes at a time.

A removal or a commit of thousands of nodes would hold up everybody else. Whoever made it waits for the rest of it (the
broker does not serve that domain meanwhile), the others do not. What follows are accounts and watches; for a removal
inside a transaction, what the transaction depends on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from hvd.transport.ids import DomId
from hvd.transport.records import dataclass

T = TypeVar("T")
EDITS_PER_SLICE = 50
REMOVALS_PER_SLICE = 25
"""Where each edit may be a change of the tree by itself. About half a millisecond, as the other."""
WATCHES_PER_SLICE = 200


@dataclass(slots=True)
class Sweep(Generic[T]):
    """What is still to be told of one change."""

    caller: DomId | None
    """Who waits for it, if anybody does."""
    edits: Iterator[T]
    """Or whatever else there is to be looked at one by one."""
    follow: Callable[[list[T]], None]
    """Does for some edits what they ask for."""
    finish: Callable[[], None] = lambda: None
    """Does what has to wait for all of them."""
    per_slice: int = EDITS_PER_SLICE
    done: bool = False

    def advance(self) -> None:
        """By one slice."""
        found = list(islice(self.edits, self.per_slice))
        self.follow(found)
        if len(found) < self.per_slice:
            self.done = True
            self.finish()


class Sweeps:
    """Those that are under way, the oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Sweep[Any]] = deque()

    def add(self, sweep: Sweep[Any]) -> None:
        """It is not done yet."""
        self._waiting.append(sweep)

    def oldest(self) -> Sweep[Any] | None:
        """The one to go on with; None when nothing is under way."""
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def __bool__(self) -> bool:
        return bool(self._waiting) and self.oldest() is not None

    def is_for(self, domid: DomId) -> bool:
        """Whether a change of this domain's is under way."""
        return bool(self._waiting) and any(sweep.caller == domid and not sweep.done for sweep in self._waiting)
