"""The asking end of the echo device."""

from __future__ import annotations

from hvd.domains.device import Frontend, Keys
from hvd.domains.runtime import Runtime
from hvd.transport.ids import DomId
from hvd.transport.protocols.echo import MESSAGE_SIZE, RING_PAGES
from hvd.transport.rings import FrontRing

TIMEOUT_S = 30.0


class EchoFrontend(Frontend):
    """Sends a message and waits for it to come back; across a backend's death it is simply sent again."""

    def __init__(self, runtime: Runtime, backend: DomId, keys: Keys) -> None:
        super().__init__(runtime, backend, keys)
        self._shared = runtime.grants.share(backend, RING_PAGES)
        self._ring = FrontRing(self._shared.view, MESSAGE_SIZE, MESSAGE_SIZE)
        self._port, self._endpoint = runtime.alloc_unbound(backend, lambda: None)
        self._connected = False
        self._open: bytes | None = None
        self._answer: bytes | None = None

    def publish(self, backend_keys: Keys) -> Keys:
        self._ring.init()
        return {"ring-ref": str(self._shared.ref), "event-channel": str(self._port)}

    def connected(self, backend_keys: Keys) -> None:
        self.runtime.waiter.attach_ring(self._port, self._ring)
        self._connected = True
        if self._open is not None:
            self._push(self._open)

    def backend_gone(self) -> None:
        self._connected = False
        self.runtime.waiter.detach_ring(self._port)

    def close(self) -> None:
        if self._connected:
            self.backend_gone()
        self._ring.close()
        self.runtime.close_port(self._port)

    def call(self, message: bytes) -> bytes:
        """Send up to 64 bytes; the 64 that come back. WaitTimeout after 30 s."""
        if self._connected:
            self._push(message)
            for _ in range(2):
                self.runtime.wait(TIMEOUT_S)
                answer = self._ring.pop()
                if answer is not None:
                    return answer
        return self._call_slowly(message)

    def _call_slowly(self, message: bytes) -> bytes:
        """The backend is away, or came and went: its next incarnation is asked again."""
        self._open = message
        self.runtime.wait_until(self._answered, "an echo", TIMEOUT_S)
        answer, self._open, self._answer = self._answer, None, None
        assert answer is not None
        return answer

    def _answered(self) -> bool:
        if self._connected and self._answer is None:
            self._answer = self._ring.pop()
        return self._answer is not None

    def _push(self, message: bytes) -> None:
        if self._ring.push(message):
            self._endpoint.notify()
