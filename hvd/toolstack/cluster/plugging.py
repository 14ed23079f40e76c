"""What becomes of a device that is plugged into a domain: its ends connect, one refuses it, or one is not there to.

Both ends say so in XenStore, and nothing announces it: it is looked at again and again, soon at first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from hvd.toolstack.cluster.domain import ALIVE, LOOK_EVERY_S, DomainInfo, DomainState
from hvd.toolstack.cluster.errors import DeviceRefused
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.xenbus_state import XenbusState, parse_state

if TYPE_CHECKING:
    from hvd.toolstack.cluster.cluster import Cluster
    from hvd.toolstack.cluster.domain import Domain

FIRST_LOOK_S, SILENT_S = 0.002, 1.0
ENDED = frozenset({XenbusState.CLOSING, XenbusState.CLOSED})
OFFERED = frozenset({XenbusState.INIT_WAIT, XenbusState.CONNECTED})
STANDING = frozenset(
    {DomainState.WAITING, DomainState.PAUSED, DomainState.DEAD, DomainState.FAILED, DomainState.PRESERVED}
)
"""The states in which a domain says nothing, and which it does not leave soon."""


class Ends(NamedTuple):
    """What a device's directories hold."""

    front: dict[str, str]
    back: dict[str, str]

    @property
    def states(self) -> tuple[XenbusState, XenbusState]:
        return parse_state(self.front.get("state")), parse_state(self.back.get("state"))

    @property
    def connected(self) -> bool:
        return set(self.states) == {XenbusState.CONNECTED}

    @property
    def reason(self) -> str:
        """Why one of them will have nothing to do with the other, in its own words."""
        return self.back.get("error") or self.front.get("error") or ""

    @property
    def closed_by(self) -> str:
        """Which of them has closed the device, the backend first; empty: neither."""
        front, back = self.states
        return "backend" if back in ENDED else "frontend" if front in ENDED else ""


class Refusals:
    """Of one device that is plugged in: an end gives its reason, or has closed it and gives none for a while.

    Where a device of that number was there just before, what an end says of that one may come late, into the new one's
    directory: it does not know it for another. It goes on with the new one a moment later.
    """

    def __init__(self) -> None:
        self._silent_until: float | None = None

    def seen(self, ends: Ends, *, last: bool = False) -> str:
        """Why it will not be, by what its ends say now; empty: that is not known. `last`: nobody waits any longer."""
        if ends.reason:
            return ends.reason
        now = time.monotonic()
        if not ends.closed_by:
            self._silent_until = None
            return ""
        if self._silent_until is None:
            self._silent_until = now + SILENT_S
        if last or now >= self._silent_until:
            return f"its {ends.closed_by} closed it, and does not say why"
        return ""


def plug(cluster: Cluster, domain: Domain, device: m.DeviceConfig, deadline_s: float) -> str:
    """Attach a device, and wait until both ends have connected; else for whom it waits, "driver, which is paused".

    DeviceRefused with the end's own words, and the device was taken away again, as it is when we are interrupted.
    """
    _ask(cluster, domain, device)
    with taken_away_unless_done(domain, device):
        return _wait(cluster, domain, device, deadline_s)


@contextlib.contextmanager
def taken_away_unless_done(domain: Domain, device: m.DeviceConfig) -> Iterator[None]:
    """Take a device that was attached away again when what is done with it fails, or is interrupted."""
    try:
        yield
    except BaseException:
        _take_away(domain, device)
        raise


def _ask(cluster: Cluster, domain: Domain, device: m.DeviceConfig) -> None:
    """DomctlAttach. Whoever is interrupted before the answer is there takes away what may have come of it."""
    had = domain.has_device(device.kind, device.devid)
    try:
        cluster.call(m.DomctlAttach(domain.domid, device))
    except HypercallError:
        raise  # it was refused, for another of its name perhaps
    except BaseException:
        if not had:
            _take_away(domain, device)
        raise


def _take_away(domain: Domain, device: m.DeviceConfig) -> None:
    with contextlib.suppress(HvdError):  # its domain may have gone, and the device with it
        domain.detach(device.kind, device.devid, force=True)


def ends_of(cluster: Cluster, domain: DomId, backend: DomId, device: m.DeviceConfig) -> Ends:
    """Both directories as they are now, empty if there are none: what a domain has made of `backend` is not asked."""
    front = keys_of(cluster, f"/local/domain/{domain}/device/{device.kind}/{device.devid}")
    return Ends(front, keys_of(cluster, f"/local/domain/{backend}/backend/{device.kind}/{domain}/{device.devid}"))


def keys_of(cluster: Cluster, path: str) -> dict[str, str]:
    """What stands in a directory of XenStore; nothing if there is none."""
    try:
        values: dict[str, bytes] = cluster.call(m.StoreReadAll(path))
    except HypercallError:
        return {}
    return {name: value.decode("utf-8", "replace") for name, value in values.items()}


def _wait(cluster: Cluster, domain: Domain, device: m.DeviceConfig, deadline_s: float) -> str:
    until, look_after_s = time.monotonic() + deadline_s, FIRST_LOOK_S
    backend, refusals = cluster.domain(device.backend), Refusals()
    with cluster.events() as events:
        while not (ends := ends_of(cluster, domain.domid, backend.domid, device)).connected:
            if refusal := refusals.seen(ends, last=time.monotonic() >= until):
                raise DeviceRefused(refusal)
            slow = _whose_turn(domain, backend, ends)
            if slow.state in STANDING:
                return f"{slow.name}, which is {slow.state_text}"
            if time.monotonic() >= until:
                return f"{slow.name}, which has not gone on with it for {deadline_s:g} s"
            events.next_until(min(until, time.monotonic() + look_after_s))
            look_after_s = min(2 * look_after_s, LOOK_EVERY_S)
    return ""


def _whose_turn(domain: Domain, backend: Domain, ends: Ends) -> DomainInfo:
    """A backend offers first; of a domain that has no process there is nothing to offer to."""
    guest = domain.info()
    offered = ends.states[1] in OFFERED
    return guest if offered or guest.state not in ALIVE else backend.info()
