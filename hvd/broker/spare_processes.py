"""The world's part in spares: their descriptors, endpoint and birth, and what they say while they stand by."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hvd.broker import sandboxes
from hvd.broker.bells import serve
from hvd.broker.certificates import birth_certificate, birth_descriptors, spawn_order
from hvd.broker.domain import Domain, Spare
from hvd.broker.endpoints import Endpoints
from hvd.broker.held import STDIO_DOMAIN, UPCALL, UPCALL_DOMAIN, HeldDescriptors, domain_key, spare_key
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.poller import Poller
from hvd.transport.codec import BadMessage, unpack_request
from hvd.transport.descriptors import drop_first_message, first_message, send_message
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import MESSAGE_BYTES_MAX
from hvd.transport.machine_link import DISOWN, SIGNAL, Inheritance
from hvd.transport.messages import SandboxReport, SchedShutdown
from hvd.transport.shared_info import TimeInfo, write_time_info
from hvd.transport.upcalls import BIRTH

SIGKILL = 9
OnReport = Callable[[DomId, Incarnation, dict[str, str], str], None]
"""Whose spare says what its sandbox lacks; and why it cannot take over, "" if it can."""


class SpareProcesses:
    """A domain has at most one."""

    def __init__(
        self, held: HeldDescriptors, endpoints: Endpoints, poller: Poller, inheritance: Inheritance, on_report: OnReport
    ) -> None:
        self._held = held
        self._endpoints = endpoints
        self._poller = poller
        self._inheritance = inheritance
        self._on_report = on_report

    def create(self, domid: DomId) -> None:
        self._held.create_domain(spare_key(domid))

    def fork_order(self, domain: Domain) -> tuple[list[Any], tuple[int, int]]:
        """What the machine is told when its process is to be made, and the descriptors that go with it."""
        assert domain.spare is not None
        descriptors = self._held.by_key[spare_key(domain.domid)]
        return spawn_order(domain, domain.spare.incarnation), (descriptors[UPCALL_DOMAIN], descriptors[STDIO_DOMAIN])

    def start(self, hypervisor: Hypervisor, domain: Domain) -> None:
        """Open its endpoint, tell it who it is to be, and listen for its report: for a new one, or in a new broker."""
        spare, domid = domain.spare, domain.domid
        assert spare is not None
        secret = hypervisor.secret_key(domid, spare.incarnation)
        self._endpoints.open_spare(domid, spare.incarnation, secret)
        serve(self._held, spare.upcall_channel, self._inheritance.brokers_before)
        self._write_clock(domain, spare.incarnation)
        if not spare.stands:
            self._deliver_birth(hypervisor, domain, spare)
        self._poller.watch(self._descriptor(domid), lambda: self._hear(domid, spare.incarnation))

    def _deliver_birth(self, hypervisor: Hypervisor, domain: Domain, spare: Spare) -> None:
        domid = domain.domid
        certificate = birth_certificate(
            hypervisor, domain, spare.incarnation, run_dir=self._inheritance.run_dir, spare=True,
            endpoint=self._endpoints.name(domid, spare.incarnation), server_key=self._endpoints.spare_key(domid),
        )  # fmt: skip
        descriptors = birth_descriptors(
            self._held, spare_key(domid), spare.console, spare.console_channel, spare.upcall_channel
        )
        with self._socket(domid) as sock, suppress(OSError):  # it is dead, or has it from the broker before
            send_message(sock, [BIRTH, certificate], descriptors)

    def promote(self, domid: DomId) -> None:
        """What was the spare's is the domain's, by name."""
        self._poller.unwatch(self._descriptor(domid))
        self._held.rename(spare_key(domid), domain_key(domid))
        self._endpoints.promote(domid)

    def release(self, domid: DomId) -> None:
        """Whatever of it there is: it may have been refused half-way."""
        self._endpoints.close_spare(domid)
        if spare_key(domid) in self._held.by_key:
            self._poller.unwatch(self._descriptor(domid))
            self._held.drop(spare_key(domid))

    def kill_order(self, domain: Domain) -> list[Any]:
        """What the machine is told when it is to be killed, and its death reported."""
        assert domain.spare is not None
        return [SIGNAL, domain.domid, domain.spare.incarnation, SIGKILL]

    def disown_order(self, domain: Domain) -> list[Any]:
        """What the machine is told when it is to be killed, and never spoken of."""
        assert domain.spare is not None
        return [DISOWN, domain.domid, domain.spare.incarnation]

    def _write_clock(self, domain: Domain, incarnation: Incarnation) -> None:
        """Time runs for what it does while it stands by; it begins anew when it takes over."""
        now = time.monotonic_ns()
        page = self._held.shared_info(spare_key(domain.domid))
        write_time_info(page, TimeInfo(now, 0, time.time_ns(), domain.domid, incarnation))
        page.close()

    def _hear(self, domid: DomId, incarnation: Incarnation) -> None:
        """It says one thing before it runs. The message goes from the socket when it is in the journal."""
        descriptor = self._descriptor(domid)
        with self._socket(domid) as sock:
            untrusted = first_message(sock, MESSAGE_BYTES_MAX)
        if untrusted is None:
            return
        self._poller.unwatch_readable(descriptor)
        if untrusted:
            self._on_report(domid, incarnation, *_parse(untrusted))
            if spare_key(domid) in self._held.by_key:
                drop_first_message(descriptor)

    @contextmanager
    def _socket(self, domid: DomId) -> Iterator[socket.socket]:
        sock = socket.socket(fileno=self._descriptor(domid))
        try:
            yield sock
        finally:
            sock.detach()

    def _descriptor(self, domid: DomId) -> int:
        return self._held.by_key[spare_key(domid)][UPCALL]


def _parse(untrusted: bytes) -> tuple[dict[str, str], str]:
    """What its sandbox lacks, and why it cannot take over."""
    try:
        message = unpack_request(untrusted)[3]
    except BadMessage as error:
        return {}, str(error)
    match message:
        case SandboxReport():
            return sandboxes.known(message.lacking), ""
        case SchedShutdown():
            return {}, message.text or "it shut down while it stood by"
        case _:
            return {}, f"it made a {type(message).__name__} while it stood by"
