"""What a device's two ends are to their domain, and what registers them: every driver's contract, shipped or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from hvd.transport.errors import PeerFault
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass

if TYPE_CHECKING:
    from hvd.domains.runtime import Runtime

NUMBER_DIGITS_MAX = 20

Keys = dict[str, str]
"""XenStore nodes of one end's directory, by name."""


def number_in(untrusted_keys: Keys, name: str, most: int) -> int:
    """A decimal node of the peer's, 0 to `most`; PeerFault naming the key when it is anything else."""
    text = untrusted_keys.get(name, "")
    if len(text) <= NUMBER_DIGITS_MAX and text.isascii() and text.isdecimal() and int(text) <= most:
        return int(text)
    raise PeerFault(f"key {name} is {text[:40]!r}, not a number from 0 to {most}")


class DeviceEnd:
    """What both ends have: a way to say that the other one broke the protocol."""

    on_fault: Callable[[PeerFault], None]
    """Set by the xenbus end that drives this one: closes the device, and nothing else."""

    def guarded(self, handler: Callable[[], None]) -> Callable[[], None]:
        """The handler for an event channel: a PeerFault in it closes the device instead of the domain."""

        def run() -> None:
            try:
                handler()
            except PeerFault as fault:
                self.on_fault(fault)

        return run


class Frontend(DeviceEnd, ABC):
    """A guest's end. `XenbusFrontend` calls these as the backend comes and goes; the guest uses what else it offers.

    A frontend outlives its backends: after `backend_gone` it keeps what was asked of it, after the next `connected` it
    re-issues what was not answered.
    """

    def __init__(self, runtime: Runtime, backend: DomId, keys: Keys) -> None:
        """`keys` are what the toolstack wrote into the frontend's directory."""
        self.runtime = runtime
        self.backend = backend
        self.keys = keys

    @abstractmethod
    def publish(self, backend_keys: Keys) -> Keys:
        """Make the shared ring empty and ready for a new backend incarnation, which has the features in `backend_keys`.

        No backend is attached now. Returns the keys it needs: ring refs, ports, features.
        """

    def published(self, backend_keys: Keys) -> None:
        """The ring stands in the store for the backend incarnation that offered `backend_keys`, which may attach.

        A device for which this offer says all may issue its unanswered requests now: the backend finds them when it
        attaches. What has been answered may come before `connected`.
        """

    @abstractmethod
    def connected(self, backend_keys: Keys) -> None:
        """The backend has attached: requests may flow, unanswered ones are issued again."""

    @abstractmethod
    def backend_gone(self) -> None:
        """The backend that the ring was published for is dead and fenced: it touches no shared pages any more."""

    def in_use(self) -> str:
        """Why the device cannot be let go of now, in a few words; empty if it can."""
        return ""

    def close(self) -> None:
        """The device goes away: end what was asked of it, give back ports and pages."""


class Backend(DeviceEnd, ABC):
    """A driver domain's end for one frontend. Everything it reads from the frontend is untrusted."""

    CHANGING: ClassVar[frozenset[str]] = frozenset()
    """Keys of the toolstack's that may change while the device is there."""

    def __init__(self, runtime: Runtime, frontend: DomId, keys: Keys) -> None:
        """`keys` are what the toolstack wrote into the backend's directory."""
        self.runtime = runtime
        self.frontend = frontend
        self.keys = keys

    @abstractmethod
    def features(self) -> Keys:
        """What it offers, written before the frontend publishes. May raise: the device then is Closed, saying why."""

    @abstractmethod
    def attach(self, untrusted_keys: Keys) -> Keys:
        """Map the frontend's ring and bind its port. Returns keys to write with Connected. PeerFault on nonsense."""

    @abstractmethod
    def detach(self) -> None:
        """Let go of everything shared, whatever state it is in. Called once for each attach, also one that raised."""

    def changed(self, name: str, value: str) -> None:
        """The toolstack has written another value for one of the keys in CHANGING."""

    def close(self) -> None:
        """The device goes away: let go of what `features` opened."""


@dataclass(frozen=True, slots=True)
class DeviceDriver:
    """A device's two ends under the name it has in XenStore, and what the conformance suite asks of every device."""

    kind: str
    frontend: Callable[[Runtime, DomId, Keys], Frontend]
    backend: Callable[[Runtime, DomId, Keys], Backend]
    prose: str = ""
    """The protocol in words, usually its module's docstring. It names every key that an end writes."""
    exercise: Callable[[Any], None] | None = None
    """A round of the device's own traffic: given a frontend, it returns when the answers were right, else raises."""
    has_medium: bool = False
    """Whether there is a file behind a device: its backend is made with `Runtime.open_medium` answered already."""
