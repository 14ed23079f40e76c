"""The device handshake, one end of it real, the other the fuzzer's, who writes what he likes where he may: the device
is attached and let go in turns, our state follows, and no key of his ends the domain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hvd.broker.dispatch import is_journaled
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.sessions import Sessions, domain_session
from hvd.broker.state import State
from hvd.domains import xenbus
from hvd.domains.block.backend import ring_refs
from hvd.domains.device import Backend, DeviceDriver, Frontend, Keys, number_in
from hvd.domains.runtime import Runtime
from hvd.domains.store import StoreClient
from hvd.domains.xenbus import ERROR_MAX, Found, XenbusBackend, XenbusFrontend
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_request, unpack_request
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DomId, Incarnation
from hvd.transport.xenbus_state import XenbusState
from tests.fuzz.python.choices import Choices

STEPS_MAX = 24
DRIVER, GUEST = DomId(1), DomId(2)
KIND, DEVID = "vbd", "51712"
BACK, FRONT = f"/local/domain/{DRIVER}/backend/{KIND}/{GUEST}/{DEVID}", f"/local/domain/{GUEST}/device/{KIND}/{DEVID}"
NODES = ("state", "hvd-incarnation", "hvd-backend-incarnation", "hvd-session", "hvd-closed-for", "ring-ref",
         "ring-page-order", "event-channel", "sectors", "error", "online", "queue-0/ring-ref", "")  # fmt: skip
VALUES = (*(str(int(state)) for state in XenbusState), "1.1", "1.2", "2.1", "9" * 40, "-1", "0x1", "²", "0", "")


class _Counted:
    """Attached and let go in turns, whatever the other end does."""

    attached = False

    def attach_now(self) -> None:
        assert not self.attached, "attached twice"
        self.attached = True

    def let_go(self) -> None:
        assert self.attached, "let go of what was not attached"
        self.attached = False


class Front(Frontend, _Counted):
    """Reads of its backend's keys what a disk's frontend does."""

    published_to = False

    def publish(self, backend_keys: Keys) -> Keys:
        assert not self.attached
        self.published_to = True
        return {"ring-ref": "8", "event-channel": "3"}

    def connected(self, backend_keys: Keys) -> None:
        self.attach_now()
        number_in(backend_keys, "sectors", 2**40)

    def backend_gone(self) -> None:
        """Also of one that was published to, and never connected: what was asked may wait in its ring already."""
        assert self.attached or self.published_to
        self.attached = self.published_to = False

    def close(self) -> None:
        """The device is taken away, whoever has it."""
        self.attached = self.published_to = False


class Back(Backend, _Counted):
    """Reads of its frontend's keys what a disk's backend does."""

    def features(self) -> Keys:
        return {"sectors": "2048"}

    def attach(self, untrusted_keys: Keys) -> Keys:
        self.attach_now()
        assert min(ring_refs(untrusted_keys)) >= 0
        number_in(untrusted_keys, "event-channel", 2**32 - 1)
        return {}

    def detach(self) -> None:
        self.let_go()


vars(xenbus)["find_driver"] = lambda kind: DeviceDriver(kind, Front, Back)


def _booted() -> list[bytes]:
    """Domain-0, a driver domain and a guest with a disk, all ready."""
    hypervisor = Hypervisor(b"secret", 0)
    device = m.DeviceConfig(KIND, int(DEVID), "drv", {"params": "/dev/null"})
    for number, config in enumerate((
        m.DomainConfig("Domain-0", "hvd:dom0"), m.DomainConfig("drv", "hvd:driver_domain", driver_domain=True),
        m.DomainConfig("guest", "hvd:idle", devices=[device]),
    )):  # fmt: skip
        hypervisor.create(config, 1)
        domid = DomId(number)
        hypervisor.started(domid, hypervisor.domains[domid].incarnation, 100 + number, 1)
        hypervisor.domain_ready(domid, 1)
    return [State(hypervisor, Sessions()).snapshot()]


BOOTED = _booted()


class Machine:
    """A hypervisor's tables with a driver domain and a guest, and hypercalls of theirs."""

    def __init__(self) -> None:
        self.state = State.restore(BOOTED)
        self._sequence = 0

    def call(self, domid: DomId, message: Any) -> Any:
        self._sequence += 1
        body = pack_request(message, self._sequence, 0, 0)
        session = "t:aa" if domid == DOM0 else domain_session(domid, self.state.hypervisor.domains[domid].incarnation)
        message = unpack_request(body)[3]
        if is_journaled(message):
            self.state.apply(["call", 2, session, domid, body])
            reply = self.state.repeated(session, self._sequence)
        else:
            reply = self.state.call(session, domid, self._sequence, message, 2)
        assert reply is not None
        if reply.errno:
            raise HypercallError(reply.errno, str(reply.value), type(message).__name__)
        return reply.value

    def runtime(self, domid: DomId) -> Runtime:
        """As much of a domain's runtime as the handshake needs."""
        store = StoreClient(lambda message: self.call(domid, message))
        return cast(Runtime, SimpleNamespace(store=store, incarnation=Incarnation(1), domid=domid))

    def deliver(self, runtime: Runtime) -> None:
        queue = self.state.hypervisor.upcalls[runtime.domid]
        while (event := queue.take()) is not None:
            queue.acknowledge(event[0], 0)
            runtime.store.deliver(event[1], event[2])


def _backend(runtime: Runtime) -> XenbusBackend:
    """As a driver domain takes up a device."""
    store = runtime.store
    watched = [(f"{FRONT}/state", lambda _: made.follow(store.read_all(FRONT)))]
    (token,), (keys, frontend_keys), _ = store.follow(watched, [BACK, FRONT])
    assert isinstance(token, str)
    found = Found(DEVID, keys, FRONT, token)
    made: XenbusBackend = XenbusBackend(runtime, KIND, GUEST, found, say=store.write_all, log=lambda _: None)
    made.follow(frontend_keys)
    return made


def play(data: bytes) -> None:
    choices = Choices(data)
    machine = Machine()
    is_back = choices.flag()
    runtime, peer = machine.runtime(DRIVER if is_back else GUEST), (GUEST if is_back else DRIVER)
    end: XenbusBackend | XenbusFrontend = (
        _backend(runtime) if is_back else XenbusFrontend(runtime, KIND, DEVID)
    )
    for _ in range(STEPS_MAX):
        if not choices.more():
            break
        _peer_acts(choices, machine, peer, FRONT if is_back else BACK)
        if choices.below(8) == 1:
            end.fault(PeerFault(choices.text(20) * 200))
        elif choices.flag():
            machine.deliver(runtime)
        _check(end)
    if isinstance(end, XenbusBackend):
        end.close()
        assert not cast(_Counted, end.device).attached


def _honest(choices: Choices, home: str) -> m.Multicall:
    """What an end that keeps to the protocol writes at once, in some state."""
    number, state = str(1 + choices.below(3)), choices.pick(("1", "2", "3", "4", "6"))
    theirs = {"ring-ref": "8", "event-channel": "3", "hvd-session": f"1.{number}", "hvd-backend-incarnation": "1"}
    ours = {"sectors": "2048", "hvd-incarnation": number}
    keys = (theirs if home == FRONT else ours) | {"state": state}
    return m.Multicall([pack_call(m.StoreWrite(0, f"{home}/{key}", value.encode())) for key, value in keys.items()])


def _peer_acts(choices: Choices, machine: Machine, peer: DomId, home: str) -> None:
    """In its own directory; domain 0 in its name where a fuzzer is to be the toolstack."""
    node, value = choices.pick(NODES), choices.text(12) if choices.flag() else choices.pick(VALUES)
    who = DOM0 if choices.below(8) == 1 else peer
    path = f"{home}/{node}".removesuffix("/")
    message: Any = m.StoreWrite(0, path, value.encode())
    match choices.below(8):
        case 0:
            message = m.StoreRm(0, path)
        case 1:
            message = m.StoreWrite(0, path, choices.take(choices.below(40)) * (1 + choices.below(64)))
        case 2 | 3:
            message = _honest(choices, home)
    try:
        machine.call(who, message)
    except HypercallError:
        return  # it may not, or there is no such node


def _check(end: XenbusBackend | XenbusFrontend) -> None:
    device = cast(_Counted, end.device)
    if isinstance(end, XenbusFrontend):
        assert device.attached == end.connected
        assert end.state is not XenbusState.CONNECTED or end.connected or end.error == ""
    else:
        assert device.attached == end._attached
        assert not (end.state is XenbusState.CLOSED and device.attached)
    written = end._store.read_text(f"{end.path}/error")
    assert len(written) <= ERROR_MAX
