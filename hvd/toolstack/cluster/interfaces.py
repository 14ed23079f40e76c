"""What became of a vif that was plugged into a program: its init says so in XenStore, and announces it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from hvd.toolstack.cluster.domain import LOOK_EVERY_S, DomainInfo, DomainState
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.protocols.net import INTERFACE_KEY, NO_INTERFACE_KEY
from hvd.transport.xenbus_state import XenbusState, parse_state

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
    """Why it is not there yet, and when it will be."""
    refused: str = ""
    """Why it will not be."""


def plugged(cluster: Cluster, domain: Domain, device: m.DeviceConfig, deadline_s: float = DEADLINE_S) -> Plugged:
    """Wait until the interface of a vif is there, or it is known why not. NoSuchDomain when the domain has gone."""
    until = time.monotonic() + deadline_s
    with cluster.events() as events:
        while not any(found := _look(cluster, domain, device)):
            if time.monotonic() >= until:
                who = f"neither {domain.name} nor {device.backend}"
                return Plugged(waits=f"{who} has gone on with it for {deadline_s:g} s; it is when both do")
            events.next_until(min(until, time.monotonic() + LOOK_EVERY_S))
    return found


def _look(cluster: Cluster, domain: Domain, device: m.DeviceConfig) -> Plugged:
    front = _keys(cluster, f"/local/domain/{domain.domid}/device/{device.kind}/{device.devid}")
    if front.keys() & {INTERFACE_KEY, NO_INTERFACE_KEY}:
        return Plugged(front.get(INTERFACE_KEY, ""), "", front.get(NO_INTERFACE_KEY, ""))
    switch = cluster.domain(device.backend).info()
    for info in (domain.info(), switch):
        if not _acts(info):
            return Plugged(waits=f"{info.name} is {info.state_text}{'' if info.ready else ', not ready'}; "
                                 "it is when that runs")  # fmt: skip
    closed = parse_state(front.get("state")) is XenbusState.CLOSED  # of which no event tells
    reason = front.get("error") or (closed and _keys(cluster, front.get("backend", "")).get("error"))
    return Plugged(refused=reason) if reason else Plugged()


def _acts(info: DomainInfo) -> bool:
    return info.ready and info.state is DomainState.RUNNING


def _keys(cluster: Cluster, path: str) -> dict[str, str]:
    """What stands in a directory of XenStore; nothing if there is none."""
    try:
        values: dict[str, bytes] = cluster.call(m.StoreReadAll(path))
    except HypercallError:
        return {}
    return {name: value.decode("utf-8", "replace") for name, value in values.items()}
