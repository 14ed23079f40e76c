"""The asking end of the echo device."""

from __future__ import annotations

from hvd.domains.ring_device import RingFrontend
from hvd.transport.protocols.echo import MESSAGE_SIZE


class EchoFrontend(RingFrontend):
    """`call` sends up to 64 bytes and returns the 64 that come back."""

    REQUEST_SIZE = RESPONSE_SIZE = MESSAGE_SIZE
