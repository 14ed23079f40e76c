"""What became of a vif that was plugged into a program: its init says so in XenStore, and announces it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from hvd.toolstack.cluster.domain import LOOK_EVERY_S, DomainInfo, DomainState
from hvd.toolstack.cluster.plugging import Refusals, ends_of
from hvd.transport import messages as m
from hvd.transport.protocols.net import INTERFACE_KEY, NO_INTERFACE_KEY

if TYPE_CHECKING:
    from hvd.toolstack.cluster.cluster import Cluster
    from hvd.toolstack.cluster.domain import Domain

DEADLINE_S = 10.0
"""As long as libxl waits for a device (LIBXL_INIT_TIMEOUT)."""


class Plugged(NamedTuple):
    """One of the three says something."""

    interface: str = ""
    """The name that the program knows it by."""
    waits: str = ""
    """For whom it waits, and what that one does instead."""
    refused: str = ""
    """Why it will not be."""


def plugged(cluster: Cluster, domain: Domain, device: m.DeviceConfig, deadline_s: float = DEADLINE_S) -> Plugged:
    """Wait until the interface of a vif is there, or it is known why not. NoSuchDomain when the domain has gone."""
    until, refusals = time.monotonic() + deadline_s, Refusals()
    with cluster.events() as events:
        while not any(found := _look(cluster, domain, device, refusals, last=(last := time.monotonic() >= until))):
            if last:
                return Plugged(waits=f"{domain.name}, which has made no interface of it for {deadline_s:g} s")
            events.next_until(min(until, time.monotonic() + LOOK_EVERY_S))
    return found


def _look(cluster: Cluster, domain: Domain, device: m.DeviceConfig, refusals: Refusals, *, last: bool) -> Plugged:
    switch = cluster.domain(device.backend).info()
    ends = ends_of(cluster, domain.domid, switch.domid, device)
    front = ends.front
    if front.keys() & {INTERFACE_KEY, NO_INTERFACE_KEY}:
        return Plugged(front.get(INTERFACE_KEY, ""), "", front.get(NO_INTERFACE_KEY, ""))
    for info in (domain.info(), switch):
        if not _acts(info):
            return Plugged(waits=f"{info.name}, which is {info.state_text}{'' if info.ready else ', not ready'}")
    return Plugged(refused=refusals.seen(ends, last=last))  # of which no event tells


def _acts(info: DomainInfo) -> bool:
    return info.ready and info.state is DomainState.RUNNING

