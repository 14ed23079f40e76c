"""Both ends of a device that is one ring: what every such driver would repeat of grants, ports and re-attachment.

A driver derives one class from each end. The frontend asks with `call`, one request at a time; the backend answers each
request, in order. Keys of the frontend: `ring-ref`, `event-channel`, `hvd-ring-checks` (1: it keeps a check beside each
index; see hvd/transport/rings.py). The ring is one page of ring.h, whose slots are as large as the larger of request
and answer.

A request whose backend died is asked again of the next one: it may be carried out twice, and is answered once.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import ClassVar

from hvd.domains.attaching import Attached
from hvd.domains.device import Backend, Frontend, Keys, number_in
from hvd.domains.runtime import Runtime
from hvd.transport.channels import Endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import GRANT_REF_MAX, DomId, GrantRef, Port
from hvd.transport.rings import RING_CHECKS, BackRing, FrontRing

RING_REF, EVENT_CHANNEL = "ring-ref", "event-channel"
PORT_MAX = 131_071
BATCH = 64
"""Requests answered before the other devices of this domain have their turn."""
QUICK_WAITS = 2
QUICK_WAIT_S = 1.0
"""Events an answer is looked for without a deadline's bookkeeping: usually it is the first."""


class RingFrontend(Frontend):
    """The asking end."""

    REQUEST_SIZE: ClassVar[int]
    """Bytes of a request; a shorter one is filled with zeros."""
    RESPONSE_SIZE: ClassVar[int]
    """Bytes of an answer."""
    TIMEOUT_S: ClassVar[float] = 30.0
    """How long `call` waits, give or take two seconds; backends' deaths included."""

    def __init__(self, runtime: Runtime, backend: DomId, keys: Keys) -> None:
        super().__init__(runtime, backend, keys)
        self._shared = runtime.grants.share(backend, 1)
        self._ring = FrontRing(self._shared.view, self.REQUEST_SIZE, self.RESPONSE_SIZE)
        self._port, self._endpoint = runtime.alloc_unbound(backend, self._on_event)
        self._waiter, self._mine = runtime.waiter, (self._port,)
        self._quick_ns = int(min(self.TIMEOUT_S, QUICK_WAIT_S) * 1e9)
        self._connected = False
        self._open: bytes | None = None
        """The request that `call` waits for."""
        self._answer: bytes | None = None
        self._owed = 0
        """Answers that this backend has still to give, those to calls that were given up among them."""

    def publish(self, backend_keys: Keys) -> Keys:
        self._ring.close()
        # another one: what a backend broke stays so
        self._ring = FrontRing(self._shared.view, self.REQUEST_SIZE, self.RESPONSE_SIZE, checked=True)
        self._ring.init()
        self._owed = 0
        return {RING_REF: str(self._shared.ref), EVENT_CHANNEL: str(self._port), RING_CHECKS: "1"}

    def connected(self, backend_keys: Keys) -> None:
        self.runtime.waiter.attach_ring(self._port, self._ring)
        self._connected = True
        if self._open is not None:
            self._push(self._open)

    def backend_gone(self) -> None:
        if self._connected:
            self._connected = False
            self.runtime.waiter.detach_ring(self._port)

    def close(self) -> None:
        self.backend_gone()
        self._ring.close()
        self.runtime.close_port(self._port)
        with contextlib.suppress(HypercallError):  # EBUSY: a backend that has not let go keeps the pages until it dies
            self.runtime.grants.unshare(self._shared)

    def call(self, request: bytes) -> bytes:
        """Ask, and wait for the answer: this backend's, or its next incarnation's. WaitTimeout after TIMEOUT_S.

        For the guest's own code; not from a handler.
        """
        self._open = request
        try:
            if self._connected:
                self._push(request)
                for _ in range(QUICK_WAITS):
                    ready = self._waiter.wait(self._quick_ns)
                    if ready != self._mine:  # runtime.wait without what our port does not need
                        self.runtime.deliver(ready)
                    answer = self._take()
                    if answer is not None:
                        return answer
            return self._wait_for_answer()
        finally:
            self._open = None

    def _wait_for_answer(self) -> bytes:
        self._answer = None
        self.runtime.wait_until(self._answered, f"an answer from domain {self.backend}", self.TIMEOUT_S)
        assert self._answer is not None
        return self._answer

    def _answered(self) -> bool:
        self._answer = self._take()
        return self._answer is not None

    def _take(self) -> bytes | None:
        """The answer to the open request, if it is there. What nobody waits for any more is dropped."""
        if not self._connected:
            return None
        try:
            while (answer := self._ring.pop()) is not None:
                self._owed -= 1
                if not self._owed and self._open is not None:
                    return answer
        except PeerFault as fault:
            self.on_fault(fault)
        return None

    def _on_event(self) -> None:
        """Inside `call` the answer is taken there; outside, it would make the port ready again for ever."""
        if self._open is None:
            self._take()

    def _push(self, request: bytes) -> None:
        if self._ring.push(request):
            self._endpoint.notify()
        self._owed += 1


class RingBackend(Backend):
    """The answering end, for one frontend."""

    REQUEST_SIZE: ClassVar[int]
    RESPONSE_SIZE: ClassVar[int]

    _ring: BackRing | None = None
    _attached: Attached | None = None
    _endpoint: Endpoint | None = None

    @abstractmethod
    def answer(self, untrusted_request: bytes) -> bytes:
        """The answer to one request of REQUEST_SIZE bytes. PeerFault on nonsense closes the device.

        Any other exception is a bug of the driver, and ends the whole domain.
        """

    def features(self) -> Keys:
        return {}

    def attach(self, untrusted_keys: Keys) -> Keys:
        ref = number_in(untrusted_keys, RING_REF, GRANT_REF_MAX)
        port = number_in(untrusted_keys, EVENT_CHANNEL, PORT_MAX)
        bound = (Port(port), self.guarded(self._serve))
        self._attached = self.runtime.attach(self.frontend, [GrantRef(ref)], [bound])
        checked = untrusted_keys.get(RING_CHECKS) == "1"
        self._ring = BackRing(self._attached.pages[0].view, self.REQUEST_SIZE, self.RESPONSE_SIZE, checked=checked)
        ours, self._endpoint = self._attached.ports[0]
        self.runtime.waiter.attach_ring(ours, self._ring)
        return {}

    def detach(self) -> None:
        if self._attached is None:
            return
        if self._ring is not None:
            self.runtime.waiter.detach_ring(self._attached.ports[0][0])
            self._ring.close()
        self.runtime.detach(self._attached)
        self._ring = self._attached = self._endpoint = None

    def _serve(self) -> None:
        """Answer at most a batch; what is left makes the port ready again."""
        ring, endpoint = self._ring, self._endpoint
        if ring is None or endpoint is None:
            return
        for _ in range(BATCH):
            untrusted_request = ring.pop()
            if untrusted_request is None:
                return
            if ring.push(self.answer(untrusted_request)):
                endpoint.notify()
