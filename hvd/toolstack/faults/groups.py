"""Faults of many domains: all but one are killed, or a random subset is stopped one by one and restored at random."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from hvd.toolstack.faults.fault import Aim, BadFault, Effect, Fault, Order, Seen
from hvd.toolstack.faults.held import HeldFault, held_fault
from hvd.toolstack.faults.signals import BROKER_UNDOES, DIES, KERNEL_AND_REAPER, ended_by, stopped
from hvd.transport.faults import FaultKind


class Swizzle:
    """FoundationDB's swizzle-clog: who is hit, when, and when each goes on, is drawn from the seed before it begins."""

    def __init__(self, order: Order) -> None:
        """BadFault with fewer than two domains."""
        if len(order.victims) < 2:
            raise BadFault(f"fault swizzle: expected two domains or more, found {len(order.victims)}")
        drawn = random.Random(order.seed)
        hit = drawn.sample(order.victims, drawn.randint(2, len(order.victims)))
        back = list(range(len(hit)))
        drawn.shuffle(back)
        self._gap_s = order.for_s / (2 * len(hit))
        self._stops = []
        for number, victim in enumerate(hit):
            stops_s, restored_s = number * self._gap_s, order.for_s / 2 + (back[number] + 1) * self._gap_s
            self._stops.append(HeldFault(replace(order, for_s=restored_s - stops_s), victim, FaultKind.HANG, stopped))
        self._seen: list[Seen] = [Seen(None, "not stopped")] * len(hit)

    def begin(self) -> None:
        """Returns when the last of them is stopped; each is restored by the broker."""
        for number, stop in enumerate(self._stops):
            if number:
                time.sleep(self._gap_s)
            try:
                stop.begin()
            except BaseException:
                for begun in self._stops[:number]:
                    begun.undo()
                raise
            self._seen[number] = stop.look()

    def look(self) -> Seen:
        for number, stop in enumerate(self._stops):
            if self._seen[number].activated is not True:
                self._seen[number] = stop.look()
        names = (f"{stop.victim.name} {seen.evidence}" for stop, seen in zip(self._stops, self._seen, strict=True))
        return Seen(True if all(seen.activated for seen in self._seen) else None, ", ".join(names))

    def undo(self) -> None:
        for stop in self._stops:
            stop.undo()


def _swizzle(order: Order) -> list[Effect]:
    return [Swizzle(order)]


GROUP_FAULTS = (
    Fault(
        "kill-all-but", "SIGKILL of every domain but one, and dom0", KERNEL_AND_REAPER,
        f"the one that is spared waits for whom it needs; {DIES}",
        held_fault(FaultKind.KILL, ended_by("killed by SIGKILL")), aim=Aim.SPARED,
    ),
    Fault(
        "swizzle", "a random subset is stopped one by one and restored in random order", "/proc/PID/stat",
        "with a heartbeat shorter than the stops: found; without one all go on where they were", _swizzle,
        aim=Aim.GROUP, for_s=2.0, undone_by=BROKER_UNDOES,
    ),
)  # fmt: skip
