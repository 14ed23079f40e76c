"""The answering end of the echo device."""

from __future__ import annotations

from hvd.domains.ring_device import RingBackend
from hvd.transport.protocols.echo import MESSAGE_SIZE


class EchoBackend(RingBackend):
    """Sends every message back."""

    REQUEST_SIZE = RESPONSE_SIZE = MESSAGE_SIZE

    def answer(self, untrusted_request: bytes) -> bytes:
        return untrusted_request
