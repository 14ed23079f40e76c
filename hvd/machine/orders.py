"""What a broker orders of one domain's process that lives."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvd.machine.children import Child
from hvd.machine.dumps import Dumps
from hvd.machine.exits import Exits
from hvd.machine.halts import Halts
from hvd.transport.cgroups import DomainGroups, bound_memory
from hvd.transport.machine_link import BOUND, DUMP, DUMP_LIVE, READY, SIGNAL, UNBOUND

ORDERS = frozenset({SIGNAL, READY, DUMP, DUMP_LIVE, BOUND})


class DomainOrders:
    """Carried out at once; `refused` tells the broker of what the host does not let it."""

    def __init__(self, exits: Exits, dumps: Dumps, halts: Halts, refused: Callable[[list[Any]], None]) -> None:
        self._exits, self._dumps, self._halts, self._refused = exits, dumps, halts, refused

    def carry_out(self, child: Child, order: list[Any], groups: list[DomainGroups]) -> None:
        """An order without the numbers of its domain; `groups`: those that domains are in."""
        match order:
            case [verb, int() as number] if verb == SIGNAL:
                self.signal(child, number)
            case [verb, bool() as is_waited_for] if verb == READY:
                self._exits.follow(child, is_waited_for=is_waited_for)
            case [verb, str() as name, list() as fault] if verb == DUMP:
                self._dumps.order(child, name, fault)
            case [verb, str() as path] if verb == DUMP_LIVE:
                self._dumps.order_live(child, Path(path))
            case [verb, int() as kib] if verb == BOUND and (why := bound_memory(groups, child.pid, kib)):
                self._refused([UNBOUND, child.domid, child.incarnation, why])

    def signal(self, child: Child, number: int) -> None:
        """A domain that is killed while a core of it is written does not wait for that."""
        if number == signal.SIGKILL:
            self._dumps.abandon(child, "it was killed while its core was written")
        child.signal(number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self._halts.spread(child, number)
