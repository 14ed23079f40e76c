"""A named service as its members and its clients see it: who is active, since when, and what only that one may write.

The hypervisor chooses, behind the fence: of the domains with the same `service` in their configuration the first that
is ready is active, the others stand by. `/local/service/NAME` says who, and is watched.
"""

from __future__ import annotations

from collections.abc import Callable

from hvd.domains.runtime import Runtime
from hvd.transport.errors import HvdError, LocalError
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass

WAIT_S = 60.0
"""How long a wait without a deadline sleeps at a time."""


class NotActive(HvdError):
    """What only the active domain may do was tried by one that is not, or is not any more."""


@dataclass(frozen=True, slots=True)
class Active:
    """Who serves."""

    domid: DomId
    name: str
    incarnation: int
    epoch: int
    """Rises with each that becomes active: what carries a lower one is of an earlier one, and comes too late."""


class Service:
    """One name, followed from the first look on."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self.name = name
        self.path = f"/local/service/{name}"
        self.active: Active | None = None
        """Nobody, as far as we have heard: there is no such service, or nobody stands by."""
        self.on_change: Callable[[Active | None], None] = _ignore
        """Called from `wait` when another is active, or nobody."""
        runtime.store.watch(f"{self.path}/active", lambda _: self._look())
        self._look()

    @property
    def is_ours(self) -> bool:
        """Whether we are active ourselves, as we are until we end: nobody takes that from a domain that lives."""
        return self.active is not None and self._is_us(self.active)

    def wait_active(self, timeout_s: float | None = None) -> int:
        """Stand by until we are active ourselves; our epoch. WaitTimeout, never without a timeout.

        LocalError in a domain that does not name the service in its configuration.
        """
        if self._runtime.service != self.name:
            ours = repr(self._runtime.service) if self._runtime.service else "none"
            text = f"domain {self._runtime.name} has no service = {self.name!r} in its configuration (it has {ours})"
            raise LocalError(text)
        return self._wait(self._is_us, f"being active for service {self.name}", timeout_s).epoch

    def wait_served(self, timeout_s: float | None = None) -> Active:
        """Who is active, when somebody is. WaitTimeout."""
        return self._wait(lambda active: True, f"somebody active for service {self.name}", timeout_s)

    def write(self, key: str, value: str | bytes | int) -> None:
        """Tell all clients something, below `data`. NotActive, and nothing is written, unless we are active."""
        if not self.is_ours:
            raise NotActive(f"domain {self._runtime.name} is not active for service {self.name}: {self.active}")
        self._runtime.store.write(f"{self.path}/data/{key}", value)

    def read(self, key: str) -> bytes | None:
        """What the active one, or one before it, has written; None: nothing."""
        return self._runtime.store.read(f"{self.path}/data/{key}")

    def _is_us(self, active: Active) -> bool:
        return (active.domid, active.incarnation) == (self._runtime.domid, self._runtime.incarnation)

    def _wait(self, wanted: Callable[[Active], bool], what: str, timeout_s: float | None) -> Active:
        while self.active is None or not wanted(self.active):
            if timeout_s is None:
                self._runtime.wait(WAIT_S)
            else:
                self._runtime.wait_until(lambda: self.active is not None and wanted(self.active), what, timeout_s)
        return self.active

    def _look(self) -> None:
        keys = self._runtime.store.read_all(self.path)
        before, self.active = self.active, _parse(keys)
        if self.active != before:
            self.on_change(self.active)


def _parse(keys: dict[str, str]) -> Active | None:
    """The hypervisor writes all of them before it writes who is active."""
    if not keys.get("active"):
        return None
    return Active(DomId(int(keys["active"])), keys["name"], int(keys["incarnation"]), int(keys["epoch"]))


def _ignore(active: Active | None) -> None:
    """For whoever does not want to know."""
