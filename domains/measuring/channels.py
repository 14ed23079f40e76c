"""Many event channels between two measured domains: opened, bound, rung and heard, one by one."""

from __future__ import annotations

from typing import Any, ClassVar

from hvd.domains.guest import Guest
from hvd.transport.channels import Endpoint
from hvd.transport.errors import LocalError
from hvd.transport.ids import DomId, Port


class ManyChannels:
    """Either end."""

    ORDERS: ClassVar[tuple[str, ...]] = ("open_channels", "bind_channels", "ring_channels", "heard_channels")

    def __init__(self, guest: Guest) -> None:
        self._runtime = guest.runtime
        self._endpoints: list[Endpoint] = []
        self._heard: set[int] = set()

    def open_channels(self, peer: int, count: int) -> dict[str, Any]:
        """Ports for the peer to bind: adjacent ones, since nothing else opens any meanwhile."""
        opened = [self._runtime.alloc_unbound(DomId(peer), _nothing) for _ in range(count)]
        ports = [port for port, _ in opened]
        if ports != list(range(ports[0], ports[0] + count)):
            raise LocalError(f"the ports {ports[0]} to {ports[-1]} are not adjacent")
        self._endpoints = [endpoint for _, endpoint in opened]
        return {"first": ports[0]}

    def bind_channels(self, caller: int, first: int, count: int) -> dict[str, Any]:
        """Each is raised once by being bound: what was heard of that is forgotten."""
        for port in range(first, first + count):
            self._runtime.bind_interdomain(DomId(caller), Port(port), self._hearer(port))
        while self._runtime.wait(0):
            continue
        self._heard.clear()
        return {}

    def ring_channels(self) -> dict[str, Any]:
        for endpoint in self._endpoints:
            endpoint.notify()
        return {"rung": len(self._endpoints)}

    def heard_channels(self, count: int) -> dict[str, Any]:
        """Wait until so many different ones were heard; how many that were."""
        self._runtime.wait_until(lambda: len(self._heard) >= count, f"{count} channels being heard", 30.0)
        return {"heard": len(self._heard)}

    def _hearer(self, port: int) -> Any:
        return lambda: self._heard.add(port)


def _nothing() -> None:
    """The opening end does not listen."""
