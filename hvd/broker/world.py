"""The live `Hardware`: what the tables ask for as descriptors, messages to the machine, sockets and announcements."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import zmq

from hvd.broker import core_dumps, sandboxes
from hvd.broker.audit import AuditLog
from hvd.broker.console_log import ConsoleLog
from hvd.broker.domain import Domain
from hvd.broker.endpoints import CONNECTIONS_MAX, Endpoints
from hvd.broker.hardware import Refusal
from hvd.broker.held import (
    INFO_READ_ONLY,
    PAGE,
    STDIO,
    STDIO_DOMAIN,
    TRACE,
    UPCALL,
    UPCALL_DOMAIN,
    HeldDescriptors,
    channel_key,
    domain_key,
    extent_key,
)
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.lives import SIGKILL
from hvd.broker.poller import Poller
from hvd.broker.publisher import Publisher
from hvd.broker.trace_buffers import TraceBuffers, as_reply
from hvd.broker.tracing import Phase
from hvd.transport.descriptors import send_message
from hvd.transport.errors import PeerFault
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import DOM0, DOMID_XEN, DomId, ExtentId, Incarnation, Port
from hvd.transport.limits import MESSAGE_BYTES_MAX
from hvd.transport.machine_link import DISOWN, DUMP, SIGNAL, SPAWN, STOP, Inheritance
from hvd.transport.shared_info import TimeInfo, write_time_info
from hvd.transport.upcalls import BIRTH, DESCRIPTORS, EVENT, REPLY, REPLY_BYTES_MAX, RUN, TOO_LARGE

SOCKETS_MAX = 4096
GOODBYE_MS = 500
ALLOCATOR = 0
"""The side of a channel that its allocator has."""
PART_LEAST = 32
"""Descriptors that a domain may hold however many domains there are: those of its birth, and a few."""
POSTS_PER_TURN = 8
OUTBOX_MAX = 64
"""Messages that may wait for a domain to read its upcall socket; past it the domain is killed."""


class World:
    """Everything outside the tables."""

    def __init__(
        self,
        inheritance: Inheritance,
        poller: Poller,
        on_ready: Callable[[DomId | None], None],
        on_fault: Callable[[Domain, FaultNotice | None], None],
        on_post: Callable[[Domain, bytes], None],
    ) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.max_sockets = SOCKETS_MAX
        self._context = context
        self.stop_requested: bool | None = None
        self.inheritance = inheritance
        self.held = HeldDescriptors(inheritance.link, inheritance.held)
        self.endpoints = Endpoints(context, inheritance.run_dir, poller, on_ready, self._end_flood)
        self.publisher = Publisher(context, self.endpoints.directory, poller)
        self.trace = TraceBuffers(self.held)
        self.console_log = ConsoleLog(inheritance.run_dir, poller)
        self.audit_log = AuditLog(inheritance.run_dir)
        self._poller = poller
        self._on_fault = on_fault
        self._on_post = on_post
        self.refusals: list[Refusal] = []
        self._unsettled: list[Callable[[], None]] = []
        """What waits until the command it comes from is in the journal."""
        self._outboxes: dict[DomId, deque[tuple[list[Any], tuple[int, ...]]]] = {}
        self._answered: dict[DomId, int] = {}
        """The last hypercall whose descriptors this broker has sent."""
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._hypervisor: Hypervisor | None = None

    def connect(self, hypervisor: Hypervisor) -> None:
        """The tables whose keys and queues this world serves."""
        self._hypervisor = hypervisor
        hypervisor.attach(self)

    @property
    def hypervisor(self) -> Hypervisor:
        assert self._hypervisor is not None
        return self._hypervisor

    # ---- channels and extents ----------------------------------------------------------------------------------------

    def create_channel(self, channel: int, owner: DomId) -> None:
        with self._noting_refusal("channel", channel):
            self._keep_to_part(owner)
            self.held.create_channel(channel)

    def release_channel(self, channel: int) -> None:
        self.held.release_channel(channel)

    def raise_end(self, channel: int, side: int) -> None:
        self.held.endpoint(channel, side).kick()

    def mark_closed(self, channel: int, side: int) -> None:
        self.held.endpoint(channel, side).mark_closed()

    def mark_open(self, channel: int, side: int) -> None:
        self.held.endpoint(channel, side).mark_open()

    def create_extent(self, extent: ExtentId, owner: DomId, pages: int, *, readonly: bool) -> None:
        with self._noting_refusal("extent", extent):
            self._keep_to_part(owner)
            self.held.create_extent(extent, pages, readonly=readonly)

    def _keep_to_part(self, owner: DomId) -> None:
        """Half of our descriptors go to whoever asks, of the other half each domain has its part. OSError past it."""
        if owner == DOM0 or self.held.used <= self.held.most // 2:
            return
        hypervisor = self.hypervisor
        ports, table = hypervisor.channels.ports.get(owner, {}), hypervisor.grants.tables.get(owner)
        keys = [channel_key(binding.channel) for binding in ports.values() if binding.side == ALLOCATOR]
        keys += [extent_key(extent) for extent in (table.extents if table is not None else ())]
        part = max(self.held.most // 2 // len(hypervisor.domains), PART_LEAST)
        if (has := self.held.cost(keys)) >= part:
            text = f"domain {owner} holds {has} of {self.held.most} descriptors, and few are left: its part is {part}"
            raise OSError(errno.EMFILE, text)

    def seal_extent(self, extent: ExtentId) -> None:
        with self._noting_refusal("seal", extent):
            self.held.seal_extent(extent)

    def release_extent(self, extent: ExtentId) -> None:
        self.held.drop(extent_key(extent))

    def clear_byte(self, extent: ExtentId, offset: int) -> None:
        with suppress(OSError):  # its holders punched a hole there, and the host has no memory to fill it
            os.pwrite(self.held.extent(extent), b"\0", offset)

    def copy(self, source: ExtentId, source_offset: int, target: ExtentId, target_offset: int, length: int) -> None:
        os.pwrite(self.held.extent(target), os.pread(self.held.extent(source), length, source_offset), target_offset)

    def read_extent(self, extent: ExtentId, offset: int, length: int) -> bytes:
        return os.pread(self.held.extent(extent), length, offset)

    def open_medium(self, number: int, path: str, *, readonly: bool) -> None:
        with self._noting_refusal("medium", number):
            self.held.open_medium(number, path, readonly=readonly)

    def release_medium(self, number: int) -> None:
        self.held.release_medium(number)

    # ---- domains -----------------------------------------------------------------------------------------------------

    def create_domain(self, domid: DomId) -> None:
        with self._noting_refusal("domain", domid):
            self.held.create_domain(domid)

    def release_domain(self, domid: DomId) -> None:
        """Whatever of it there is: it may have been refused half-way."""
        self.console_log.forget(domid)
        self.audit_log.forget(domid)
        self.endpoints.close(domid)
        self._outboxes.pop(domid, None)
        self._answered.pop(domid, None)
        if domain_key(domid) in self.held.by_key:
            self._poller.unwatch(self._upcall_socket(domid))
            self.held.drop(domain_key(domid))

    def fork_domain(self, domain: Domain) -> None:
        """Ask the machine for its process, which waits for its birth."""
        descriptors = self.held.by_key[domain_key(domain.domid)]
        spawn = [SPAWN, domain.domid, domain.incarnation, domain.name, sandboxes.layers_off(domain)]
        self._tell_machine(spawn, (descriptors[UPCALL_DOMAIN], descriptors[STDIO_DOMAIN]))

    def start_domain(self, domain: Domain) -> None:
        """Make its endpoint's directory, set its clock and its trace: it may be born."""
        tracing = self.hypervisor.tracing
        secret = self.hypervisor.secret_key(domain.domid, domain.incarnation)
        with self._noting_refusal("start", domain.domid):
            self.endpoints.prepare(domain.domid, domain.incarnation, secret)
            self.update_shared_info(domain)
            if tracing.phase is Phase.ON and tracing.wants(domain):
                self.trace.switch(domain.domid, on=True)

    def open_endpoint(self, domain: Domain) -> None:
        """Bind the endpoint of this incarnation: for a new one, or again in a new broker."""
        secret = self.hypervisor.secret_key(domain.domid, domain.incarnation)
        with self._noting_refusal("endpoint", domain.domid):
            self.endpoints.open(domain.domid, secret)
        self.console_log.attach(domain.domid, domain.name, self.held.by_key[domain_key(domain.domid)][STDIO])
        if not domain.ready or core_dumps.reports_faults(domain.config):
            self._poller.watch(self._upcall_socket(domain.domid), lambda: self.hear(domain))

    def hear(self, domain: Domain) -> None:
        """Take in what a domain has written to its upcall socket: hypercalls as it comes to life, then a fault notice.

        Hypercalls go from the socket when they are in the journal. A notice stays: the next broker may need it too.
        """
        for _ in range(POSTS_PER_TURN):
            if domain_key(domain.domid) not in self.held.by_key:
                return  # what it said has ended it
            untrusted = self._peek(domain)
            if untrusted is None:
                return
            if untrusted and not domain.ready and not FaultNotice.may_be(untrusted):
                self._on_post(domain, untrusted)
            elif domain.ready or not untrusted or core_dumps.reports_faults(domain.config):
                break
            self._drop_first(domain)
        else:
            return
        self._poller.unwatch_readable(self._upcall_socket(domain.domid))
        if untrusted and core_dumps.reports_faults(domain.config):
            self._read_notice(domain, untrusted)

    def _read_notice(self, domain: Domain, untrusted: bytes) -> None:
        try:
            self._on_fault(domain, FaultNotice.parse(untrusted))
        except PeerFault as fault:
            self.publisher.log("bad fault notice", domid=domain.domid, reason=str(fault))
            self._on_fault(domain, None)

    def _peek(self, domain: Domain) -> bytes | None:
        """The first message in its upcall socket, None when there is none, b"" when there will be none any more."""
        sock = socket.socket(fileno=self._upcall_socket(domain.domid))
        try:
            return sock.recv(MESSAGE_BYTES_MAX, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        finally:
            sock.detach()

    def _drop_first(self, domain: Domain) -> None:
        if domain_key(domain.domid) in self.held.by_key:
            os.read(self._upcall_socket(domain.domid), 1)

    def deliver_birth(self, domain: Domain) -> None:
        """Tell a process which domain it is, and what it is born with: it readies itself, and runs nothing yet."""
        hypervisor = self.hypervisor
        console_port, upcall_port = hypervisor.birth_ports(domain)
        extent, console, upcall = hypervisor.console_descriptors(domain)
        certificate = {
            "domid": domain.domid, "incarnation": domain.incarnation, "name": domain.name,
            "traceable": core_dumps.may_be_wanted(domain.config),
            "reports_faults": core_dumps.reports_faults(domain.config),
            "kernel": domain.config.kernel, "args": domain.config.args, "cpus": domain.config.cpus,
            "console_port": console_port, "upcall_port": upcall_port,
            "run_dir": self.inheritance.run_dir,
            "endpoint": self.endpoints.name(domain.domid, domain.incarnation),
            "sandbox": sandboxes.settings(domain),
            "devices": [[device.kind, device.devid] for device, _ in hypervisor.own_devices(domain)],
            "server_key": self.endpoints.public_key(domain.domid),
        }
        by_key = self.held.by_key
        channel, virq = by_key[channel_key(console)], by_key[channel_key(upcall)]
        descriptors = (
            by_key[domain_key(domain.domid)][INFO_READ_ONLY], by_key[domain_key(domain.domid)][TRACE],
            by_key[extent_key(extent)][0],
            channel[PAGE], channel[1], channel[2], virq[PAGE], virq[1],
        )  # fmt: skip
        self._upcall(domain.domid, [BIRTH, certificate], descriptors)

    def let_run(self, domain: Domain) -> None:
        self._unsettled.append(lambda: self._let_run(domain.domid))

    def _let_run(self, domid: DomId) -> None:
        """From here on it runs: the journal knows it. Nothing if it was abandoned in the same command."""
        if domain_key(domid) in self.held.by_key:
            self._upcall(domid, [RUN], ())

    def signal_domain(self, domain: Domain, number: int) -> None:
        message = [SIGNAL, domain.domid, domain.incarnation, number]
        self._unsettled.append(lambda: self._tell_machine(message))

    def dump_domain(self, domain: Domain) -> None:
        fault = domain.fault.as_list() if domain.fault is not None else []
        message = [DUMP, domain.domid, domain.incarnation, core_dumps.core_name(domain), fault]
        self._unsettled.append(lambda: self._tell_machine(message))

    def settle(self) -> None:
        """The command is in the journal: do what cannot be taken back."""
        waiting, self._unsettled = self._unsettled, []
        for act in waiting:
            act()
        self.held.settle()

    def update_shared_info(self, domain: Domain) -> None:
        clock = domain.clock
        wall_base = time.time_ns() - (time.monotonic_ns() - clock.started_ns)
        page = self.held.shared_info(domain.domid)
        write_time_info(page, TimeInfo(clock.started_ns, clock.paused_ns, wall_base, domain.domid, domain.incarnation))
        page.close()

    # ---- tracing -----------------------------------------------------------------------------------------------------

    def start_trace(self) -> None:
        with self._noting_refusal("trace", DOMID_XEN):
            self.trace.start()
        self.trace.all_ports(self.hypervisor.channels)

    def end_trace(self) -> None:
        self.trace.end()

    def switch_trace(self, domain: Domain, *, on: bool) -> None:
        with self._noting_refusal("trace", domain.domid):
            self.trace.switch(domain.domid, on=on)

    def clear_trace(self, domain: Domain) -> None:
        self.trace.clear(domain.domid)

    def keep_trace(self, domain: Domain) -> None:
        self.trace.keep(domain.domid, domain.incarnation)

    def release_trace(self, domid: DomId, incarnation: Incarnation) -> None:
        self.trace.release(domid, incarnation)

    def trace_clock(self) -> int:
        self.trace.renew_lease()
        return self.trace.clock

    def trace_head(self, domid: DomId, incarnation: Incarnation, *, kept: bool) -> int:
        return self.trace.head(domid, incarnation, kept=kept)

    def read_trace(
        self, domid: DomId, incarnation: Incarnation, first: int, *, kept: bool
    ) -> list[Any] | None:
        self.trace.renew_lease()
        slots = self.trace.read(domid, incarnation, first, kept=kept)
        return None if slots is None else as_reply(slots)

    def port_bound(self, domid: DomId, port: Port, channel: int, side: int) -> None:
        self.trace.port_bound(domid, port, channel, side)

    # ---- the upcall socket -------------------------------------------------------------------------------------------

    def send_descriptors(self, domid: DomId, sequence: int, references: tuple[tuple[str, int], ...]) -> None:
        """The descriptors that answer a hypercall, ahead of its reply; each broker sends them once."""
        if self._answered.get(domid) == sequence:
            return
        self._answered[domid] = sequence
        self._upcall(domid, [DESCRIPTORS, sequence], tuple(self._held(key, index) for key, index in references))

    def reply(self, domid: DomId, sequence: int, packed: bytes) -> None:
        """Answer a hypercall that came over the upcall socket; nothing if it has ended its caller."""
        if domain_key(domid) in self.held.by_key:
            fits = len(packed) <= REPLY_BYTES_MAX
            self._upcall(domid, [REPLY, packed] if fits else [TOO_LARGE, sequence], ())

    def _held(self, key: str, index: int) -> int:
        """A descriptor to send; a medium whose device went before its backend heard of it is an empty file by now."""
        return self.held.by_key[key][index] if key in self.held.by_key else self._nothing

    def events_pending(self, domid: DomId) -> None:
        """Feed the domain's socket with what its queue holds, and ring its upcall port."""
        self.flush_upcalls(domid)
        port = self.hypervisor.birth_ports(self.hypervisor.domains[domid])[1]
        binding = self.hypervisor.channels.ports[domid].get(port)
        if binding is not None:
            self.held.endpoint(binding.channel, binding.side).notify()

    def flush_upcalls(self, domid: DomId) -> None:
        """Send what waits, descriptors first, until the socket is full; then wait for it to become writable."""
        outbox = self._outboxes.get(domid, deque())
        queue = self.hypervisor.upcalls.get(domid)
        sock = self._upcall_socket(domid)
        try:
            while outbox:
                self._send(sock, *outbox[0])
                outbox.popleft()
            while queue is not None and (event := queue.take()) is not None:
                try:
                    self._send(sock, [EVENT, *event], ())
                except BlockingIOError:
                    queue.put_back()
                    raise
        except BlockingIOError:
            self._poller.watch_writable(sock, lambda: self.flush_upcalls(domid))
            return
        except OSError:
            # The process is dying, or has shut its socket: it will hear nothing any more, so it goes.
            self._poller.watch_writable(sock, None)
            outbox.clear()
            self.signal_domain(self.hypervisor.domains[domid], signal.SIGKILL)
            return
        self._poller.watch_writable(sock, None)

    def _end_flood(self, domid: DomId) -> None:
        """A domain that connects without end goes."""
        self.publisher.log(f"it has connected more than {CONNECTIONS_MAX} times: killed", domid=domid)
        self._tell_machine([SIGNAL, domid, self.hypervisor.domains[domid].incarnation, SIGKILL])

    def _upcall(self, domid: DomId, message: list[Any], descriptors: tuple[int, ...]) -> None:
        outbox = self._outboxes.setdefault(domid, deque())
        if len(outbox) >= OUTBOX_MAX:
            text = f"{OUTBOX_MAX} messages wait on its upcall socket, which it does not read: killed"
            self.publisher.log(text, domid=domid)
            self._tell_machine([SIGNAL, domid, self.hypervisor.domains[domid].incarnation, SIGKILL])
            return
        outbox.append((message, descriptors))
        self.flush_upcalls(domid)

    def _upcall_socket(self, domid: DomId) -> int:
        return self.held.by_key[domain_key(domid)][UPCALL]

    def _send(self, descriptor: int, message: list[Any], descriptors: tuple[int, ...]) -> None:
        sock = socket.socket(fileno=descriptor)
        try:
            send_message(sock, message, descriptors)
        finally:
            sock.detach()

    @contextmanager
    def _noting_refusal(self, what: str, number: int) -> Iterator[None]:
        """A no of the host's becomes part of the command."""
        try:
            yield
        except OSError as error:
            self.refusals.append([what, number, error.errno or errno.EIO])
            raise

    # ---- the machine and the public ----------------------------------------------------------------------------------

    def write_log(self, domain: Domain, line: str) -> None:
        self.console_log.write(domain.name, line)

    def audit(self, source: DomId, line: str) -> None:
        self.audit_log.note(source, line)

    def announce(self, event: str, domain: Domain | None, detail: str) -> None:
        if domain is None:
            self.publisher.publish(event, -1, "", 0, detail)
        else:
            self.publisher.publish(event, domain.domid, domain.name, domain.incarnation, detail)

    def stop_machine(self, *, reboot: bool) -> None:
        """Noted: the reply to whoever asked goes out first."""
        self.stop_requested = reboot

    def say_goodbye(self) -> None:
        """Let the last replies out, then have the machine end everything, us among it."""
        self._context.destroy(linger=GOODBYE_MS)
        self._tell_machine([STOP, self.stop_requested])
        signal.pause()

    def physinfo(self) -> dict[str, Any]:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGESIZE")
        return {
            "cpus": os.cpu_count(), "memory_kib": pages * size // 1024, "broker_pid": os.getpid(),
            "machine_pid": self.inheritance.machine_pid, "broker_restarts": self.inheritance.brokers_before,
            "descriptors": sum(len(d) for d in self.held.by_key.values()), "run_dir": self.inheritance.run_dir,
        }

    def disown(self, domid: int, incarnation: int) -> None:
        """A process that has no place in the tables: as if it had never been."""
        self._tell_machine([DISOWN, domid, incarnation])

    def _tell_machine(self, message: list[Any], descriptors: tuple[int, ...] = ()) -> None:
        send_message(self.inheritance.link, message, descriptors)
