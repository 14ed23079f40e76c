"""The answering end of the echo device."""

from __future__ import annotations

from hvd.domains.device import Backend, Keys
from hvd.domains.grants import MappedPages
from hvd.transport.channels import Endpoint
from hvd.transport.ids import GrantRef, Port
from hvd.transport.protocols.echo import MESSAGE_SIZE
from hvd.transport.rings import BackRing

BATCH = 64
"""Requests answered before the other devices of this domain have their turn."""


class EchoBackend(Backend):
    """Sends every message back."""

    _ring: BackRing | None = None
    _mapped: MappedPages | None = None
    _port: Port | None = None
    _endpoint: Endpoint | None = None

    def features(self) -> Keys:
        return {}

    def attach(self, untrusted_keys: Keys) -> Keys:
        ref, port = int(untrusted_keys["ring-ref"]), int(untrusted_keys["event-channel"])
        self._mapped = self.runtime.grants.map(self.frontend, GrantRef(ref))
        self._ring = BackRing(self._mapped.view, MESSAGE_SIZE, MESSAGE_SIZE)
        self._port, self._endpoint = self.runtime.bind_interdomain(self.frontend, Port(port), self.guarded(self._serve))
        self.runtime.waiter.attach_ring(self._port, self._ring)
        return {}

    def detach(self) -> None:
        if self._port is not None:
            self.runtime.waiter.detach_ring(self._port)
            self.runtime.close_port(self._port)
        if self._ring is not None:
            self._ring.close()
        if self._mapped is not None:
            self.runtime.grants.unmap(self._mapped)
        self._ring = self._mapped = self._port = self._endpoint = None

    def _serve(self) -> None:
        ring, endpoint = self._ring, self._endpoint
        if ring is None or endpoint is None:
            return
        for _ in range(BATCH):
            message = ring.pop()
            if message is None:
                return
            if ring.push(message):
                endpoint.notify()
