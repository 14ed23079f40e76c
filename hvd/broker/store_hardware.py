"""What the tables ask of the world for XenStore's doors: events, connections, rings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from hvd.broker.store import WatchEvent
from hvd.broker.xenstored.doors import StoreDoors
from hvd.broker.xenstored.rings import StoreRings
from hvd.transport.ids import DomId, ExtentId


class StoreHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    store_doors: StoreDoors
    store_rings: StoreRings

    @abstractmethod
    def noting_refusal(self, what: str, number: int) -> AbstractContextManager[None]: ...

    def store_event(self, event: WatchEvent) -> None:
        self.store_doors.add_event(event)

    def disconnect_store(self, domid: DomId) -> None:
        self.store_doors.disconnect(domid)

    def attach_store_ring(self, domid: DomId, extent: ExtentId, channel: int) -> None:
        """Nothing a domain may hear of before its hypercall is in the journal: it has the page from its answer."""
        with self.noting_refusal("ring", domid):
            self.store_rings.attach(domid, extent, channel, new=True)

    def reset_store_ring(self, domid: DomId) -> None:
        self.store_rings.reset(domid)
