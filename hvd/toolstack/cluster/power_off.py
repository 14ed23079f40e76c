"""Ends a running machine: guests first, each before the domains that serve it, then everything."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections.abc import Callable

from hvd.toolstack.cluster.connection import Connection
from hvd.toolstack.cluster.domain import ALIVE, DomainInfo
from hvd.toolstack.cluster.errors import ClusterError
from hvd.toolstack.cluster.events import EventStream
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError, HypercallTimeout
from hvd.transport.ids import DOM0, DomId, Incarnation

GRACE_S = 5.0
SLACK_S = 2.0
MACHINE_DEADLINE_S = 15.0
"""The machine itself gives its children 10 s to die."""


def power_off(connection: Connection, grace_s: float, tell: Callable[[str], None]) -> None:
    """End it and return when every process is gone; `tell` hears what is being waited for."""
    try:
        with contextlib.suppress(ClusterError, HypercallTimeout):  # a broker that hangs keeps nobody from powering off
            stop_guests(connection, grace_s, tell)
    finally:
        tell("powering off")
        _end_machine(connection)
    from hvd.toolstack.cluster.remains import remove_remains  # every command has this module, few power off

    remove_remains(connection.run_dir)


def stop_guests(connection: Connection, grace_s: float, tell: Callable[[str], None]) -> None:
    """Ask every guest to stop and wait until they have, or their grace is over; grace 0 asks nobody."""
    if grace_s > 0:
        with connection.events() as events:
            _stop_guests(connection, events, grace_s, tell)


def _end_machine(connection: Connection) -> None:
    """The signal reaches the machine whatever state its broker is in."""
    for number, deadline_s in ((signal.SIGTERM, MACHINE_DEADLINE_S), (signal.SIGKILL, MACHINE_DEADLINE_S)):
        try:
            signal.pidfd_send_signal(connection.machine_pidfd, number)
        except ProcessLookupError:
            return
        if select.select([connection.machine_pidfd], [], [], deadline_s)[0]:
            return
    raise ClusterError(f"the machine (pid {connection.machine_pid}) does not even end by SIGKILL: see ps")


def _stop_guests(connection: Connection, events: EventStream, grace_s: float, tell: Callable[[str], None]) -> None:
    """Whoever serves others is asked when those are gone. One that boots again by its own policy counts as stopped."""
    stopped: dict[DomId, Incarnation] = {}
    while True:
        infos = [DomainInfo.from_wire(fields) for fields in connection.call(m.DomctlList())]
        guests = [i for i in infos if i.domid != DOM0 and i.state in ALIVE]
        left = [i for i in guests if stopped.get(i.domid, i.incarnation) == i.incarnation]
        if not left:
            return
        serving = {device["backend"] for info in left for device in info.devices}
        free = [info for info in left if info.name not in serving] or left
        for info in reversed(free):
            if info.domid not in stopped:
                stopped[info.domid] = info.incarnation
                _ask(connection, info, grace_s)
        tell(f"waiting for {', '.join(info.name for info in left)} to stop")
        if events.next_until(time.monotonic() + grace_s + SLACK_S) is None:
            return


def _ask(connection: Connection, info: DomainInfo, grace_s: float) -> None:
    try:
        connection.call(m.DomctlShutdown(info.domid, reboot=False, grace_ms=round(grace_s * 1000)))
    except HypercallError:
        return  # it has stopped by itself meanwhile
