"""XenStore's ring pages (xs_wire.h, struct xenstore_domain_interface): for domains that bring their own xenbus client.

The page is grant 1 of its domain; one event channel says that something was put into it, or taken out, either way.
Both ends can write every word, so what decides is kept here: where we have read to and written to. A ring whose client
breaks the protocol, or where our two indices are not what we have made them, says why in its `error` word, and is
spoken to again when the client asks for it by its `connection` word (docs/misc/xenstore-ring.txt); so is one whose
broker died.
"""

from __future__ import annotations

import os

from hvd.broker.held import PAGE, HeldDescriptors, channel_key, extent_key
from hvd.broker.poller import Poller
from hvd.broker.store.watches import RING
from hvd.broker.xenstored.connection import Connection
from hvd.broker.xenstored.doors import StoreDoors
from hvd.transport import xs_wire
from hvd.transport.channels import Endpoint, open_endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DomId, ExtentId
from hvd.transport.pages import Extent
from hvd.transport.records import dataclass
from hvd.transport.xs_wire import RING_BYTES, RingError

_WORD = 4
_INDEX = 0xFFFFFFFF
_REQ_CONS, _REQ_PROD = xs_wire.REQ_CONS_AT // _WORD, xs_wire.REQ_PROD_AT // _WORD
_RSP_CONS, _RSP_PROD = xs_wire.RSP_CONS_AT // _WORD, xs_wire.RSP_PROD_AT // _WORD
"""Of the page's words: looked at for each request, and for each reply."""
OURS = 1
"""The side of the channel that is the broker's."""


class RingIndexFault(PeerFault):
    """What the client says it has written or read cannot be, or what we have said is not there any more."""


def _changed(found: int, ours: int) -> RingIndexFault:
    return RingIndexFault(f"its ring index {found} is ours, and was {ours} when we wrote it")


def _too_far(theirs: int, count: int, ours: int) -> RingIndexFault:
    return RingIndexFault(f"its ring index {theirs} is {count} bytes from ours, {ours}: a ring has {RING_BYTES}")


class RingLine:
    """The bytes of one ring, from its beginning or a reconnection on. The page is zero by then, or made so."""

    pulls = True
    """Nobody says again that there is something: it is asked as long as there is a turn."""

    def __init__(self, page: memoryview, endpoint: Endpoint) -> None:
        self._page = page
        self._words = page.cast("I")
        self._endpoint = endpoint
        self._req_cons = self._rsp_prod = 0
        for at in (xs_wire.REQ_CONS_AT, xs_wire.REQ_PROD_AT, xs_wire.RSP_CONS_AT, xs_wire.RSP_PROD_AT):
            self._set(at, 0)
        self._set(xs_wire.FEATURES_AT, xs_wire.FEATURE_RECONNECTION | xs_wire.FEATURE_ERROR)
        self._set(xs_wire.ERROR_AT, RingError.NONE)
        self._fence()
        self._set(xs_wire.CONNECTION_AT, xs_wire.CONNECTED)
        endpoint.notify()

    def receive(self) -> bytes:
        """Each byte is copied once, and only then given back to the client."""
        count, _ = self._untrusted_counts()
        if not count:
            return b""
        self._fence()
        at = self._req_cons % RING_BYTES
        first = min(count, RING_BYTES - at)
        requests = self._page[xs_wire.REQUESTS_AT : xs_wire.REQUESTS_AT + RING_BYTES]
        untrusted = bytes(requests[at : at + first]) + bytes(requests[: count - first])
        self._req_cons = (self._req_cons + count) & _INDEX
        self._fence()
        self._set(xs_wire.REQ_CONS_AT, self._req_cons)
        self._endpoint.notify()
        return untrusted

    def send(self, data: bytes) -> int:
        room = RING_BYTES - self._untrusted_counts()[1]
        data = data[:room]
        if not data:
            return 0
        self._fence()
        at = self._rsp_prod % RING_BYTES
        first = data[: RING_BYTES - at]
        responses = self._page[xs_wire.RESPONSES_AT : xs_wire.RESPONSES_AT + RING_BYTES]
        responses[at : at + len(first)] = first
        responses[: len(data) - len(first)] = data[len(first) :]
        self._rsp_prod = (self._rsp_prod + len(data)) & _INDEX
        self._fence()
        self._set(xs_wire.RSP_PROD_AT, self._rsp_prod)
        self._endpoint.notify()
        return len(data)

    def expect(self, *, reading: bool, writing: bool) -> None:
        """The client rings for both."""

    def close(self, fault: PeerFault | None) -> None:
        if fault is not None:
            self.fail(RingError.RINGIDX if isinstance(fault, RingIndexFault) else RingError.PROTO)

    def fail(self, error: RingError) -> None:
        """Tell the client that nobody speaks here until it reconnects."""
        self._set(xs_wire.ERROR_AT, error)
        self._endpoint.notify()

    def _untrusted_counts(self) -> tuple[int, int]:
        """Bytes of requests that we have not read, of responses that the client has not. All indices are looked at."""
        words, req_cons, rsp_prod = self._words, self._req_cons, self._rsp_prod
        if (found := words[_REQ_CONS]) != req_cons:
            raise _changed(found, req_cons)
        if (found := words[_RSP_PROD]) != rsp_prod:
            raise _changed(found, rsp_prod)
        req_prod, rsp_cons = words[_REQ_PROD], words[_RSP_CONS]
        requests, responses = (req_prod - req_cons) & _INDEX, (rsp_prod - rsp_cons) & _INDEX
        if requests > RING_BYTES:
            raise _too_far(req_prod, requests, req_cons)
        if responses > RING_BYTES:
            raise _too_far(rsp_cons, responses, rsp_prod)
        return requests, responses

    def _set(self, at: int, value: int) -> None:
        self._words[at // _WORD] = value

    def _fence(self) -> None:
        """Python has none: a fenced store and a load that acquires, on a channel that is awake anyway."""
        self._endpoint.arm()
        self._endpoint.take()


@dataclass(slots=True)
class _Ring:
    """One domain's: its page and bell, and the connection on it while there is one."""

    extent: Extent
    endpoint: Endpoint
    bell: int
    connection: Connection | None = None


def _is_silent(bell: int) -> bool:
    """Empty the pipe; whether nobody is left who could ring it."""
    try:
        return not os.read(bell, 4096)
    except BlockingIOError:
        return False


class StoreRings:
    """The rings of all domains that have asked for theirs."""

    def __init__(self, held: HeldDescriptors, poller: Poller, doors: StoreDoors) -> None:
        self._held = held
        self._poller = poller
        self._doors = doors
        self._rings: dict[DomId, _Ring] = {}

    def attach(self, domid: DomId, extent: ExtentId, channel: int, *, new: bool) -> None:
        """Speak on a ring; on one that a dead broker spoke on, say that its client has to reconnect."""
        self.detach(domid)
        page = Extent.map(self._held.by_key[extent_key(extent)][0], 1, writable=True)
        descriptors = self._held.by_key[channel_key(channel)]
        bell, tx = (os.dup(descriptors[1 + 2 * OURS + index]) for index in (0, 1))
        endpoint = open_endpoint(descriptors[PAGE], OURS, bell, tx)
        ring = self._rings[domid] = _Ring(page, endpoint, bell)
        self._poller.watch(bell, lambda: self._hear(domid))
        endpoint.arm()
        if new:
            self._connect(domid, ring)
        else:
            words = page.view.cast("I")
            words[xs_wire.ERROR_AT // _WORD] = RingError.COMM
            endpoint.kick()

    def detach(self, domid: DomId) -> None:
        """The page and its channel are given up; nothing if there are none."""
        ring = self._rings.pop(domid, None)
        if ring is None:
            return
        self._hang_up(ring)
        self._poller.unwatch(ring.bell)
        ring.endpoint.close()

    def reset(self, domid: DomId) -> None:
        """The domain was introduced again: its ring is empty, and what came by it forgotten."""
        if domid in self._rings:
            self._connect(domid, self._rings[domid])

    def _hang_up(self, ring: _Ring) -> None:
        if ring.connection is not None and not ring.connection.closed:
            self._doors.close(ring.connection)

    def _connect(self, domid: DomId, ring: _Ring) -> None:
        self._hang_up(ring)
        ring.connection = Connection(domid, RING)
        self._doors.open(ring.connection, RingLine(ring.extent.view, ring.endpoint))

    def _hear(self, domid: DomId) -> None:
        """Something was put in, or taken out, or the client wants to begin anew."""
        ring = self._rings[domid]
        self._doors.on_work(domid)
        if _is_silent(ring.bell):
            self.detach(domid)
            return
        ring.endpoint.arm()
        ring.endpoint.take()
        if ring.extent.view.cast("I")[xs_wire.CONNECTION_AT // _WORD] == xs_wire.RECONNECT:
            self._connect(domid, ring)
        elif ring.connection is not None and not ring.connection.closed:
            self._doors.writable(ring.connection)
            self._doors.readable(ring.connection)
