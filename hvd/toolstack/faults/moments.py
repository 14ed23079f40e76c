"""Faults whose moment is chosen: kills while a domain comes back, again and again, or while it holds mapped grants.

They are carried out from here, event by event, in a thread: an injector that dies leaves nothing to be undone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from hvd.toolstack.cluster import Domain, LifecycleEvent
from hvd.toolstack.faults.fault import Effect, Fault, Order, Parameter, Seen
from hvd.toolstack.faults.signals import DIES
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.faults import FaultKind
from hvd.transport.hypercalls import HypercallError

LOOK_S = 0.002
MAPPED_DEADLINE_S = 5.0
JOIN_S = 10.0


class KillWhenBorn:
    """Kills a domain, then as many of its next incarnations as soon as each has a process."""

    def __init__(self, order: Order, victim: Domain, kills: int) -> None:
        self._order, self._victim, self._kills = order, victim, kills
        self._killed: list[int] = []
        """Incarnations."""
        self._died: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        events = self._order.cluster.events()
        try:
            self._kill(self._victim.incarnation)
        except BaseException:
            events.close()
            raise

        def follow() -> None:
            with events:
                self._follow(iter(lambda: events.next_until(time.monotonic() + LOOK_S), STOP))

        self._thread = threading.Thread(target=follow, name=f"fault {self._victim.name}", daemon=True)
        self._thread.start()

    def _follow(self, news: Iterator[LifecycleEvent | None]) -> None:
        until = time.monotonic() + self._order.for_s if self._order.for_s else None
        for event in news:
            if self._stop.is_set() or (until is not None and time.monotonic() >= until):
                return
            if event is not None and event.domid == self._victim.domid and event.event == "died":
                self._died.append(event.detail)
                if len(self._died) > self._kills > 0:
                    return
            if self._kills == 0 or len(self._killed) <= self._kills:
                self._kill_if_born()

    def _kill_if_born(self) -> None:
        info = self._order.cluster.infos().get(self._victim.domid)
        if info is not None and info.pid is not None and info.incarnation not in self._killed:
            self._kill(info.incarnation)

    def _kill(self, incarnation: int) -> None:
        try:
            self._order.cluster.call(m.FaultBegin(self._victim.domid, FaultKind.KILL, 0, self._order.seed))
        except HypercallError:
            if not self._killed:
                raise
            return  # it has just died, or is not born
        self._killed.append(incarnation)

    def look(self) -> Seen:
        wanted = max(2, self._kills + 1)
        text = f"reaper: {len(self._died)} of {len(self._killed)} incarnations killed have died"
        return Seen(True if len(self._died) >= wanted else None, text)

    def undo(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)


STOP = object()


class KillHoldingGrants:
    """Stops a domain that has mappings, sees in the broker's tables that it still has them, and kills it."""

    def __init__(self, order: Order, victim: Domain) -> None:
        self._order, self._victim = order, victim
        self._mappings = self._incarnation = 0

    def begin(self) -> None:
        """HvdError when it maps nothing in time."""
        self._incarnation = self._victim.incarnation
        until = time.monotonic() + MAPPED_DEADLINE_S
        while not self._kill_if_mapping():
            if time.monotonic() >= until:
                raise HvdError(f"domain {self._victim.name} maps no grant of another's within {MAPPED_DEADLINE_S:g} s")
            time.sleep(LOOK_S)

    def _kill_if_mapping(self) -> bool:
        """One that maps nothing is not stopped: to be stopped again and again is a fault of its own."""
        if not self._mapped():
            return False
        dom, call = self._victim.domid, self._order.cluster.call
        stop = call(m.FaultBegin(dom, FaultKind.HANG, round(MAPPED_DEADLINE_S * 1000), self._order.seed))
        self._mappings = self._mapped()
        if self._mappings:
            call(m.FaultBegin(dom, FaultKind.KILL, 0, self._order.seed))
        else:
            call(m.FaultEnd(dom, stop))
        return self._mappings > 0

    def _mapped(self) -> int:
        """By the broker's tables; none of a domain that is gone."""
        rows = (row["quotas"] for row in self._order.cluster.quotas() if row["domid"] == self._victim.domid)
        return next((quotas["mappings"][0] for quotas in rows), 0)

    def look(self) -> Seen:
        info = self._order.cluster.infos().get(self._victim.domid)
        dead = info is None or info.incarnation > self._incarnation or info.pid is None
        death = "gone" if info is None else info.last_death
        return Seen(True if dead else None, f"{self._mappings} mappings in the broker's tables; reaper: {death}")

    def undo(self) -> None:
        """It is dead."""


def _each(make: Callable[[Order, Domain], Effect]) -> Callable[[Order], list[Effect]]:
    return lambda order: [make(order, victim) for victim in order.victims]


MOMENT_FAULTS = (
    Fault(
        "crash-loop", "each incarnation is killed as soon as it has a process", "the machine's reaper",
        "its restart limit ends it as failed, or it comes back when the fault is over",
        _each(lambda order, victim: KillWhenBorn(order, victim, 0)), for_s=2.0,
        undone_by="nobody: it needs its injector",
    ),
    Fault(
        "kill-in-recovery", "SIGKILL, and again while it recovers", "the machine's reaper", DIES,
        _each(lambda order, victim: KillWhenBorn(order, victim, order.parameters["again"])),
        parameters=(Parameter("again", "how many of its next incarnations are killed", 1, 1, 4),),
    ),
    Fault(
        "kill-with-grants", "SIGKILL while it has mapped others' grants", "the broker's grant tables, and the reaper",
        f"the mappings are given back behind its death; {DIES}", _each(KillHoldingGrants),
    ),
)  # fmt: skip
