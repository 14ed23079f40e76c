"""Changes of many nodes at once: the tree has changed already, accounts and watches follow a few nodes at a time.

A removal or a commit of thousands of nodes would hold up everybody else. Whoever made it waits for the rest of it (the
broker does not serve that domain meanwhile), the others do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from hvd.broker.store.changes import Edit
from hvd.broker.store.tree import Node
from hvd.transport.ids import DomId

EDITS_PER_SLICE = 100
"""About half a millisecond."""


@dataclass(slots=True)
class Sweep:
    """What is still to be told of one change."""

    caller: DomId
    root_before: Node
    edits: Iterator[Edit]
    counted: bool
    """Who owns how much has been settled already: only what is taken away may wait for that."""
    done: bool = False

    def next_slice(self) -> list[Edit]:
        """The next few edits."""
        found = list(islice(self.edits, EDITS_PER_SLICE))
        self.done = len(found) < EDITS_PER_SLICE
        return found


class Sweeps:
    """Those that are under way, the oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Sweep] = deque()

    def add(self, sweep: Sweep) -> None:
        """It is not done yet."""
        self._waiting.append(sweep)

    def oldest(self) -> Sweep | None:
        """The one to go on with; None when nothing is under way."""
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def __bool__(self) -> bool:
        return self.oldest() is not None

    def is_for(self, domid: DomId) -> bool:
        """Whether a change of this domain's is under way."""
        return any(sweep.caller == domid and not sweep.done for sweep in self._waiting)
