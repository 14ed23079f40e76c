"""The processes that the machine was asked for and the zygote has not yet answered, in order."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from hvd.machine.watch import LOOK_EVERY_S
from hvd.transport.records import dataclass

ASKED_MAX = 16
"""How many of them the zygote is asked for at a time: its socket always has room, a later zygote little to repeat."""
PATIENCE_S = 5.0
"""How long a zygote that was asked, and is at work, may give no answer at all."""


@dataclass(slots=True)
class Spawn:
    """One request: what to tell the zygote, and the descriptors the process is born with, ours until it is answered."""

    domid: int
    incarnation: int
    message: list[Any]
    descriptors: list[int]
    disowned: bool = False
    """Nobody expects it any more, but the zygote was asked."""

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Spawns:
    """A queue whose first `asked` entries have been passed on to the zygote that runs now."""

    def __init__(self) -> None:
        self._waiting: deque[Spawn] = deque()
        self._asked = 0
        self._deadline: float | None = None

    def add(self, spawn: Spawn) -> None:
        self._waiting.append(spawn)

    def expected(self) -> list[tuple[int, int]]:
        """(domid, incarnation) of those that somebody waits for."""
        return [(spawn.domid, spawn.incarnation) for spawn in self._waiting if not spawn.disowned]

    def disown(self, domid: int, incarnation: int) -> None:
        """Nobody waits for it any more; nothing if nobody does."""
        for place, spawn in reversed(list(enumerate(self._waiting))):
            if (spawn.domid, spawn.incarnation) != (domid, incarnation):
                continue
            if place < self._asked:
                spawn.disowned = True
            else:
                spawn.close()
                del self._waiting[place]

    def to_ask(self) -> Spawn | None:
        """The next to pass on; None when there is none, or the zygote has enough to do.

        Nor while it is still to answer for one that is disowned: that one must be gone before its number comes again.
        """
        if self._asked >= min(ASKED_MAX, len(self._waiting)) or any(spawn.disowned for spawn in self._waiting):
            return None
        return self._waiting[self._asked]

    def asked(self, now_s: float) -> None:
        """The one that `to_ask` named was passed on."""
        if self._asked == 0:
            self._deadline = now_s + PATIENCE_S
        self._asked += 1

    def answered(self, domid: int, incarnation: int, now_s: float) -> bool:
        """It has a process, or cannot get one; the zygote works. False: nobody expects that any more."""
        expected = False
        for place, spawn in enumerate(self._waiting):
            if (spawn.domid, spawn.incarnation) == (domid, incarnation):
                expected = not spawn.disowned
                spawn.close()
                del self._waiting[place]
                self._asked -= place < self._asked
                break
        self._deadline = now_s + PATIENCE_S if self._asked else None
        return expected

    def forget_asked(self) -> None:
        """There is another zygote: everything has to be asked again, but for what nobody expects."""
        for spawn in self._waiting:
            if spawn.disowned:
                spawn.close()
        self._waiting = deque(spawn for spawn in self._waiting if not spawn.disowned)
        self._asked = 0
        self._deadline = None

    def deadline(self) -> float | None:
        """When to ask whether it `is_late`; None: it was asked nothing."""
        return self._deadline

    def is_late(self, now_s: float, *, is_silent: bool) -> bool:
        """Whether a zygote is stuck. One that is silent is in the middle of something: its watch judges what of."""
        if self._deadline is None or now_s < self._deadline:
            return False
        if is_silent:
            self._deadline = now_s + LOOK_EVERY_S
        return not is_silent

    def clear(self) -> None:
        for spawn in self._waiting:
            spawn.close()
        self._waiting.clear()
        self.forget_asked()
