"""What a broker orders of one domain's process that lives."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from hvd.machine.children import Child
from hvd.machine.dumps import Dumps
from hvd.machine.exits import Exits
from hvd.machine.reach import Reach
from hvd.transport.cgroups import DomainGroups, bound_memory, bound_new_disks, lift_disks
from hvd.transport.machine_link import BOUND, BOUND_DISKS, DENY, DUMP, DUMP_LIVE, READY, SIGNAL, UNBOUND

ORDERS = frozenset({SIGNAL, READY, DUMP, DUMP_LIVE, BOUND, BOUND_DISKS, DENY})


class DomainOrders:
    """Carried out at once; `refused` tells the broker of what the host does not let it."""

    def __init__(self, exits: Exits, dumps: Dumps, reach: Reach, refused: Callable[[list[Any]], None]) -> None:
        self._exits, self._dumps, self._reach, self._refused = exits, dumps, reach, refused

    def carry_out(self, child: Child, order: list[Any], groups: list[DomainGroups]) -> None:
        """An order without the numbers of its domain; `groups`: those that domains are in."""
        match order:
            case [verb, int() as number] if verb == SIGNAL:
                self.signal(child, number, groups)
            case [verb, bool() as is_waited_for] if verb == READY:
                self._exits.follow(child, is_waited_for=is_waited_for)
            case [verb, str() as name, list() as fault] if verb == DUMP:
                self._dumps.order(child, name, fault)
            case [verb, str() as path] if verb == DUMP_LIVE:
                self._dumps.order_live(child, path)
            case [verb, str() as what] if verb == DENY:
                self._reach.deny(child, what)
            case [verb, int() as kib] if verb == BOUND and (why := bound_memory(groups, child.pid, kib)):
                self._refused([UNBOUND, child.domid, child.incarnation, f"its bound of memory is not in force: {why}"])
            case [verb, int() as bps] if verb == BOUND_DISKS and (why := bound_new_disks(groups, child.pid, bps)):
                self._refused([UNBOUND, child.domid, child.incarnation, f"its io_bps is not in force: {why}"])

    def signal(self, child: Child, number: int, groups: list[DomainGroups]) -> None:
        """A domain that is killed waits neither for a core of it to be written, nor for what bounds its disks."""
        if number == signal.SIGKILL:
            self._dumps.abandon(child, "it was killed while its core was written")
        child.signal(number)
        if number == signal.SIGKILL:
            lift_disks(groups, child.pid)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self._reach.spread(child, number)
