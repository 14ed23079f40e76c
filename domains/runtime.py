"""What a kernel does for its drivers: wait on all ports at once, make hypercalls, deliver watch events, keep time.

One thread. Everything happens in `wait`: it sleeps until a port is raised and then runs that port's handler, so
drivers are called when their guest waits for them, and nowhere else.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, NoReturn

import zmq

from hvd.domains.ahead import Ahead
from hvd.domains.attaching import Attached, attach
from hvd.domains.grants import Grants
from hvd.domains.hypercalls import Hypercalls
from hvd.domains.media import Media
from hvd.domains.store import StoreClient
from hvd.transport import messages as m
from hvd.transport._native import open_own_trace, system_time_ns
from hvd.transport.call_words import CallWords
from hvd.transport.channels import Endpoint, Waiter, open_endpoint
from hvd.transport.errors import HvdError, LocalError
from hvd.transport.hypercalls import HypercallClient, Requests
from hvd.transport.ids import DOMID_SELF, DomId, GrantRef, Incarnation, Port
from hvd.transport.pages import Extent
from hvd.transport.shared_info import SharedInfo
from hvd.transport.upcalls import UpcallReceiver

SHUTDOWN_POWEROFF, SHUTDOWN_CRASH = 0, 3
LEAVING_NS = 100_000_000
"""Between two tries to give back pages that a peer has mapped."""


class WaitTimeout(HvdError):
    """A wait passed its deadline; the text says what was waited for."""


class Runtime:
    """One domain's connection to everything outside it."""

    def __init__(
        self,
        certificate: dict[str, Any],
        descriptors: list[int],
        upcalls: UpcallReceiver,
        address: str,
    ) -> None:
        """From the birth certificate, the address of the endpoint, and the descriptors.

        Shared info, trace buffer, console extent and channel, upcall channel.
        """
        info, trace, console_extent, console_page, console_rx, console_tx, upcall_page, upcall_rx = descriptors
        self.domid = DomId(certificate["domid"])
        self.incarnation = Incarnation(certificate["incarnation"])
        self.name: str = certificate["name"]
        self.args: list[str] = certificate["args"]
        self.service: str = certificate["service"]
        """The service that it serves with others, "" if none."""
        self.run_dir: str = certificate["run_dir"]
        self.devices: list[tuple[str, str]] = [(kind, str(devid)) for kind, devid in certificate["devices"]]
        """(kind, devid) of those that it is born with, as they stand below `device` in the store."""
        self.shared_info = SharedInfo(info)
        open_own_trace(info, trace)
        self.console_port = Port(certificate["console_port"])
        self.console_extent = Extent.map(console_extent, 1, writable=True)
        self.console_endpoint = open_endpoint(console_page, 0, console_rx, console_tx)
        self._upcalls = upcalls
        self._upcall_port = Port(certificate["upcall_port"])
        self.waiter = Waiter()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._endpoints: dict[Port, Endpoint] = {}
        self.stands_by = False
        """Whether another process is the domain."""
        self._lacking: dict[str, str] = {}
        self._give_back_ns = 0
        """When it is tried next, on the monotonic clock."""
        self._raised: set[Port] = set()
        """Taken by `poll`; their handlers have not run."""
        self.bind(self._upcall_port, open_endpoint(upcall_page, 0, upcall_rx, -1), self._on_upcall)
        words = upcalls.words = CallWords(upcall_page)
        for descriptor in (info, trace, console_extent, console_page, upcall_page):
            os.close(descriptor)
        connect = partial(_connect, address, certificate["server_key"], words)
        self.hypercalls = Hypercalls(upcalls, connect, words)
        self._have_clients()
        self._install_wakeup()

    def _have_clients(self) -> None:
        self.grants = Grants(self.hypercalls.call)
        self.store = StoreClient(self.hypercalls.call)
        self.media = Media(self.hypercalls.call)

    # ---- standing by -------------------------------------------------------------------------------------------------

    def stand_by(self, lacking: dict[str, str]) -> None:
        """From here on the first hypercall or wait of this process says that it stands by, and sleeps until it runs.

        Whatever needs neither, a spare does while another process is the domain; it changes nothing of the domain's.
        """
        self.stands_by = True
        self._lacking = lacking
        _ = self.hypercalls.connection  # its handshake is done long before we are ready
        self.hypercalls.have_sleeper()
        self.hypercalls.before = self._take_over

    def on_stage(self, upcalls: UpcallReceiver, hypercalls: Hypercalls) -> Runtime:
        """Another that stands by, for another hypervisor: its ports, pages, watches and waits are none of ours."""
        stage = copy(self)
        stage._upcalls, stage.hypercalls, stage.waiter = upcalls, hypercalls, Waiter()
        stage._endpoints, stage._raised = {}, set()
        stage._handlers = {self._upcall_port: stage._on_upcall}
        stage._have_clients()
        return stage

    def give_up(self, text: str) -> NoReturn:
        """A spare that cannot be the domain says why, and waits to be killed."""
        self.hypercalls.before = None
        self.hypercalls.post(m.SchedShutdown(SHUTDOWN_CRASH, text))
        self._upcalls.wait_end()

    def _take_over(self) -> None:
        self.stands_by = False
        self.hypercalls.before = None
        self.hypercalls.post(m.SandboxReport(self._lacking))
        self._upcalls.wait_run()

    @property
    def served(self) -> list[tuple[str, str, str]]:
        """(kind, domid, devid) of the devices whose backends we hosted when we were let run; there may be others now.

        Asked for by who is about to serve them: a spare then is the domain.
        """
        if self.stands_by:
            self._take_over()
        return self._upcalls.served

    def take_ahead(self) -> None:
        """From here on what was asked ahead, as we were let run, is an answer to whoever asks for it."""
        self.hypercalls.ahead = Ahead(self._upcalls.take_ahead(), self.grants)

    def give_back_ahead(self) -> None:
        """Nobody asks for what is left of it any more, or ever has."""
        if self.hypercalls.ahead is None:
            self.take_ahead()
        ahead, self.hypercalls.ahead = self.hypercalls.ahead, None
        assert ahead is not None
        ahead.give_back(self.hypercalls.call)

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until something happens, and let its drivers handle it; False if nothing did before the timeout."""
        if self.stands_by:
            self._take_over()
        timeout_ns = -1 if timeout_s is None else max(0, int(timeout_s * 1e9))
        polled = tuple(self._raised)
        if polled:
            self._raised.clear()
            timeout_ns = 0
        ready = polled + self._sleep(timeout_ns)
        self.deliver(ready)
        return bool(ready)

    def _sleep(self, timeout_ns: int) -> tuple[int, ...]:
        """What is ready; what a peer had mapped yet when it was to be given back is given back meanwhile."""
        ready: tuple[int, ...] = ()
        while self.grants.leaving and not ready and (timeout_ns < 0 or timeout_ns > LEAVING_NS):
            ready = self.waiter.wait(LEAVING_NS)
            timeout_ns -= LEAVING_NS if timeout_ns > 0 else 0
            if time.monotonic_ns() >= self._give_back_ns:
                self._give_back_ns = time.monotonic_ns() + LEAVING_NS
                self.grants.give_back_what_is_free()
        return ready or self.waiter.wait(timeout_ns)

    def deliver(self, ready: tuple[int, ...]) -> None:
        """Run the handlers of what the waiter found ready: for a driver that asks the waiter itself."""
        for port in ready:
            handler = self._handlers.get(port)
            if handler is not None:
                handler()

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait until the condition holds; WaitTimeout naming `what` past the deadline, which a pause puts off."""
        until = self.system_time_ns() + int(timeout_s * 1e9)
        while not condition():
            left = (until - self.system_time_ns()) / 1e9
            if left <= 0:
                raise WaitTimeout(f"domain {self.name}: {what} did not happen within {timeout_s:g} s")
            self.wait(left)

    def watch_fd(self, descriptor: int, handler: Callable[[], None]) -> int:
        """Run the handler from `wait` while the descriptor is readable. It stays the caller's, and open.

        The number by which `unwatch_fd` knows it.
        """
        token = min(0, *self._handlers) - 1
        self.waiter.watch_fd(token, descriptor)
        self._handlers[token] = handler
        return token

    def unwatch_fd(self, token: int) -> None:
        """No longer."""
        self.waiter.unwatch_fd(token)
        del self._handlers[token]

    def soon(self, handler: Callable[[], None]) -> None:
        """Run the handler once, from the next `wait`, behind those of the watch events that are there by then."""
        self.store.afterwards(handler)
        self.raise_again(self._upcall_port)

    def raise_again(self, port: Port) -> None:
        """Run the port's handler from the next `wait` too, others' first: it has done a part of its work."""
        self._raised.add(port)

    # ---- event channels ----------------------------------------------------------------------------------------------

    def bind(self, port: Port, endpoint: Endpoint, handler: Callable[[], None]) -> None:
        """Run the handler from `wait` whenever the port is raised."""
        self.waiter.add(port, endpoint)
        self._endpoints[port] = endpoint
        self._handlers[port] = handler

    def alloc_unbound(self, remote: DomId, handler: Callable[[], None]) -> tuple[Port, Endpoint]:
        """A new port for `remote` to bind."""
        return self._open(m.EvtchnAllocUnbound(DOMID_SELF, remote), handler)

    def bind_interdomain(self, remote: DomId, remote_port: Port, handler: Callable[[], None]) -> tuple[Port, Endpoint]:
        """Bind to a port that `remote` holds open for us; it is raised at once."""
        return self._open(m.EvtchnBindInterdomain(remote, remote_port), handler)

    def attach(
        self,
        peer: DomId,
        refs: Sequence[GrantRef],
        ports: Sequence[tuple[Port, Callable[[], None]]],
        runs: Sequence[GrantRef] = (),
    ) -> Attached:
        """Map single pages of a peer's for writing and bind to ports that it holds open for us, in few hypercalls.

        And whole runs of its grants, by their refs: whoever takes them out of the list unmaps them.
        All of it or nothing: HypercallError of the first that is refused, OSError when there is no room for one. Each
        port has its handler, as with `bind_interdomain`.
        """
        return attach(self, peer, refs, ports, runs)

    def detach(self, attached: Attached) -> None:
        """Close the ports and give the mappings back. Release everything that uses the views first."""
        for port, _ in attached.ports:
            self.close_port(port)
        for pages in [*attached.pages, *attached.runs]:
            self.grants.unmap(pages)

    def bind_virq(self, virq: int, handler: Callable[[], None]) -> Port:
        """A port that the hypervisor raises."""
        return self._open(m.EvtchnBindVirq(virq), handler)[0]

    def close_port(self, port: Port) -> None:
        """Unbind and close; the other end is told."""
        self.waiter.remove(port)
        del self._handlers[port]
        self._raised.discard(port)
        self._endpoints.pop(port).close()
        self.hypercalls.call(m.EvtchnClose(port))

    def _open(self, message: Any, handler: Callable[[], None]) -> tuple[Port, Endpoint]:
        value, descriptors = self.hypercalls.call(message)
        return self.take_channel(value, descriptors, handler)

    def take_channel(
        self, value: dict[str, Any], descriptors: list[int], handler: Callable[[], None]
    ) -> tuple[Port, Endpoint]:
        """An end of an event channel as the hypervisor has answered it; it is closed when that fails."""
        page, *ends = descriptors
        rx, tx = ends if len(ends) == 2 else (ends[0], -1)
        port = Port(value["port"])
        try:
            endpoint = open_endpoint(page, value["side"], rx, tx)
            ends.clear()
            self.bind(port, endpoint, handler)
        except BaseException:
            for end in ends:
                os.close(end)
            self.hypercalls.call(m.EvtchnClose(port))
            raise
        finally:
            os.close(page)
        return port, endpoint

    # ---- media -------------------------------------------------------------------------------------------------------

    def open_medium(self, frontend: DomId, kind: str, devid: int) -> int:
        """A descriptor of the file behind a device that we host: opened by the hypervisor, ours to close.

        HypercallError as the host refuses, or when the device is none of ours.
        """
        return self.media.open(frontend, kind, devid)

    def open_uplink(self, network: str) -> tuple[int, int]:
        """A descriptor of the TAP device that is the uplink of a network in our switch, ours to close, and its MTU.

        HypercallError when there is none.
        """
        mtu, (descriptor,) = self.hypercalls.call(m.PhysdevOpenUplink(network))
        return int(descriptor), int(mtu)

    # ---- upcalls -----------------------------------------------------------------------------------------------------

    def _on_upcall(self) -> None:
        self._upcalls.read_all()
        if until_ns := self._upcalls.take_hurry():
            self.hypercalls.hurry(until_ns)
        if self._upcalls.has_ahead:  # watches of which nobody here knows yet: what they told would be lost
            self.give_back_ahead()
        while (event := self._upcalls.next_event()) is not None:
            self.store.deliver(event.path, event.token, event.keys)
        self.store.delivered()

    def _install_wakeup(self) -> None:
        """A signal that arrives while we are about to sleep still wakes us."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.watch_fd(read, lambda: _discard(read))

    # ---- sched_op and time -------------------------------------------------------------------------------------------

    def yield_cpu(self) -> None:
        """sched_op yield: let another process of this CPU run. Between hvd's domains it is never needed."""
        os.sched_yield()

    def poll(self, ports: tuple[Port, ...], timeout_s: float) -> tuple[Port, ...]:
        """sched_op poll: sleep until some of these ports are raised; which, or () at the timeout.

        No port's handler runs before the next `wait`, which then runs those of the ports returned. A port that is
        masked is not looked at, but for the upcall port: whoever polls takes his heartbeats. LocalError on one that is
        not bound.
        """
        if unbound := [port for port in ports if port not in self._endpoints]:
            raise LocalError(f"domain {self.name} has no port {unbound[0]} to poll; it has: {sorted(self._endpoints)}")
        if self.stands_by:
            self._take_over()
        others = self._endpoints.keys() - {*ports, self._upcall_port}
        masked = [port for port in others if self.waiter.mask(port)]
        until = self.system_time_ns() + int(timeout_s * 1e9)
        try:
            while not (raised := self._raised.intersection(ports)) and (left := until - self.system_time_ns()) > 0:
                ready = self.waiter.wait(left)
                self._raised.update(Port(port) for port in ready if port > 0)
                self.deliver(tuple(token for token in ready if token < 0))  # descriptors are ready until they are read
        finally:
            for port in masked:
                self.waiter.unmask(port)
        return tuple(sorted(raised))

    def system_time_ns(self) -> int:
        """Nanoseconds this incarnation has run, pauses left out."""
        return system_time_ns()

    def set_timer(self, deadline_ns: int) -> None:
        """Raise VIRQ_TIMER once at this system time; 0 disarms."""
        self.hypercalls.call(m.SetTimer(deadline_ns))

    def watchdog(self, timeout_s: int, number: int = 0) -> int:
        """sched_op watchdog: unless it is re-armed in time this domain ends and its on_watchdog action follows.

        number 0 arms a new one; its number is returned. Timeout 0 disarms.
        """
        return int(self.hypercalls.call(m.SchedWatchdog(number, timeout_s)))

    def shutdown(self, reason: int, text: str) -> None:
        """sched_op shutdown: does not come back."""
        self.hypercalls.call(m.SchedShutdown(reason, text))
        while True:
            signal.pause()


def _discard(descriptor: int) -> None:
    os.read(descriptor, 4096)


def _connect(address: str, key: bytes, words: CallWords, requests: Requests) -> HypercallClient:
    """The context's threads are born into the sandbox that is on by now."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    return HypercallClient(context, address, key, requests=requests, broker=lambda: words.broker)
