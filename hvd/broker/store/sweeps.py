"""Changes of many nodes at once: the tree has changed already, all that follows does so a few nodes at a time.

A removal or a commit of thousands of nodes would hold up everybody else. Whoever made it waits for the rest of it (the
broker does not serve that domain meanwhile), the others do not. What follows are accounts and watches; for a removal
inside a transaction, what the transaction depends on.
"""

from __future__ import annotations

from collections import Counter, deque
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
    about: object = None
    """Of a removal in a transaction, that transaction: it concerns nothing else, so it need not wait for the others."""
    done: bool = False

    def advance(self) -> int:
        """By one slice; how much that was."""
        found = list(islice(self.edits, self.per_slice))
        self.follow(found)
        if len(found) < self.per_slice:
            self.done = True
            self.finish()
        return len(found)


class Sweeps:
    """Those that are under way, the oldest first. A snapshot is taken when there are none."""

    def __init__(self) -> None:
        self._waiting: deque[Sweep[Any]] = deque()
        self._callers: Counter[DomId | None] = Counter()
        """Whose they are: most ask about themselves who have none, while there may be thousands."""
        self._begun = 0
        """How many ever."""
        self.edits = 0
        """That were made one by one, or looked at because of a change of many, ever: what takes time."""
        self._until: dict[DomId, int] = {}
        """For whom how many of them are to be done."""
        self._let_go_on: set[DomId] = set()
        """Who has waited for that, and has his turn until the next slice."""
        self._is_to_end = False
        """Somebody waits until nothing is under way."""
        self._last: set[DomId] = set()
        """Who has begun one since then."""

    def add(self, sweep: Sweep[Any]) -> None:
        """It is not done yet."""
        if not self:
            self._until.clear()
            self._is_to_end = False
            self._last.clear()
        self._waiting.append(sweep)
        self._callers[sweep.caller] += 1
        self._begun += 1
        if self._is_to_end and sweep.caller is not None:
            self._last.add(sweep.caller)

    def come_to_an_end(self) -> None:
        """Nothing is to be under way soon: from now on, whoever begins one `has_begun_the_last` of his until then."""
        self._is_to_end = bool(self)

    def has_begun_the_last(self, domid: DomId) -> bool:
        """Whether a domain is to begin no other before nothing is under way."""
        return domid in self._last and bool(self)

    def afterwards(self, caller: DomId | None, act: Callable[[], None]) -> None:
        """Do this when all that is under way now is done; at once if nothing is."""
        if self:
            self.add(Sweep(caller, iter(()), lambda _: None, act))
        else:
            act()

    def has_to_wait(self, domid: DomId) -> bool:
        """Whether any is left of those that were under way when this was first asked for a domain.

        When none is, it may go on until the next slice, by each of its doors: one that is asked first would have the
        turn of all others. Then it begins anew. So nobody waits for ever, however many are begun meanwhile.
        """
        if self.oldest() is None or domid in self._let_go_on:
            return False
        until = self._until.setdefault(domid, self._begun)
        if self._begun - len(self._waiting) < until:
            return True
        del self._until[domid]
        self._let_go_on.add(domid)
        return False

    def go_on(self) -> None:
        """By a slice of the oldest, if there is any."""
        self._let_go_on.clear()
        sweep = self.oldest()
        if sweep is not None:
            self.edits += sweep.advance()

    def finish(self, about: object) -> None:
        """Whatever concerns this transaction alone is done."""
        for sweep in self._waiting:
            while sweep.about is about and not sweep.done:
                self.edits += sweep.advance()

    def oldest(self) -> Sweep[Any] | None:
        """The one to go on with; None when nothing is under way."""
        while self._waiting and self._waiting[0].done:
            self._callers[self._waiting.popleft().caller] -= 1
        return self._waiting[0] if self._waiting else None

    def __bool__(self) -> bool:
        return bool(self._waiting) and self.oldest() is not None

    def is_for(self, domid: DomId) -> bool:
        """Whether a change of this domain's is under way."""
        return bool(self._callers[domid]) and any(sweep.caller == domid and not sweep.done for sweep in self._waiting)
