"""Changes of many nodes at once: the tree has changed already, accounts and watches follow a few nodes at a time.

A removal or a commit of thousands of nodes would hold up everybody else. Whoever made it waits for the rest of it (the
broker does not serve that domain meanwhile), the others do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
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


class Sweeps:
    """Those that are under way, the oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Sweep] = deque()

    def begin(self, caller: DomId, root_before: Node, edits: Iterable[Edit]) -> None:
        """The tree has changed."""
        self._waiting.append(Sweep(caller, root_before, iter(edits)))

    def next_slice(self) -> tuple[Sweep, list[Edit]] | None:
        """The next few edits of the oldest; None when nothing is under way."""
        while self._waiting:
            sweep = self._waiting[0]
            edits = list(islice(sweep.edits, EDITS_PER_SLICE))
            if len(edits) < EDITS_PER_SLICE:
                self._waiting.popleft()
            if edits:
                return sweep, edits
        return None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def is_for(self, domid: DomId) -> bool:
        """Whether a change of this domain's is under way."""
        return any(sweep.caller == domid for sweep in self._waiting)
