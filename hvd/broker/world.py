"""The live `Hardware`: what the tables ask for as descriptors, messages to the machine, sockets and announcements."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from hvd.broker import ahead, devices
from hvd.broker.audit import AuditLog
from hvd.broker.bells import Bells
from hvd.broker.callers_cpus import CallersCpus
from hvd.broker.certificates import birth_certificate, birth_descriptors, spawn_order
from hvd.broker.connections import Connections
from hvd.broker.console_log import ConsoleLog
from hvd.broker.directories import brought_by_event
from hvd.broker.domain import Domain
from hvd.broker.endpoints import CONNECTIONS_AT_ONCE_MAX, CONNECTIONS_MAX, Endpoints
from hvd.broker.event_log import Event
from hvd.broker.fault_effects import FaultEffects
from hvd.broker.fault_hardware import FaultHardware
from hvd.broker.hardware import Refusal
from hvd.broker.heart import Heart
from hvd.broker.held import STDIO, STDIO_DOMAIN, UPCALL_DOMAIN, HeldDescriptors, domain_key
from hvd.broker.held_hardware import HeldHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.listeners import Listeners
from hvd.broker.lives import SIGKILL
from hvd.broker.poller import Poller
from hvd.broker.process_hardware import ProcessHardware
from hvd.broker.publisher import Publisher
from hvd.broker.ready_made import FIRST, ReadyMade
from hvd.broker.spare_hardware import SpareHardware
from hvd.broker.spare_processes import SpareProcesses
from hvd.broker.store_hardware import StoreHardware
from hvd.broker.trace_buffers import TraceBuffers
from hvd.broker.trace_hardware import TraceHardware
from hvd.broker.upcall_sockets import UpcallSockets
from hvd.broker.xenstored.doors import StoreDoors
from hvd.broker.xenstored.rings import StoreRings
from hvd.broker.xenstored.sockets import HOST, StoreSockets
from hvd.transport.descriptors import send_message
from hvd.transport.ids import DOM0, DomId
from hvd.transport.machine_link import DISOWN, SIGNAL, STOP, Inheritance
from hvd.transport.pulse import BEAT_EVERY_S
from hvd.transport.run_dir import STORE_SOCKET, XENSTORED
from hvd.transport.shared_info import TimeInfo, write_time_info
from hvd.transport.upcalls import AHEAD, BIRTH, RUN

SOCKETS_MAX = 4096
GOODBYE_MS = 500


class World(TraceHardware, HeldHardware, SpareHardware, FaultHardware, StoreHardware, ProcessHardware):
    """Everything outside the tables."""

    def __init__(
        self,
        inheritance: Inheritance,
        poller: Poller,
        on_ready: Callable[[DomId | None], None],
        listeners: Listeners,
    ) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.max_sockets = SOCKETS_MAX
        self._context = context
        self.stop_requested: bool | None = None
        self.inheritance = inheritance
        self.held = HeldDescriptors(inheritance.link, inheritance.held)
        self.connections = Connections(self.held)
        self.endpoints = Endpoints(
            context, inheritance.run_dir, poller, self.connections,
            on_ready=on_ready, on_flood=self._end_flood, beat=inheritance.pulse.beat,
        )  # fmt: skip
        self.ready_made = ReadyMade(self.held, self.endpoints)
        self.publisher = Publisher(context, self.endpoints.directory, poller)
        self.cpus = CallersCpus()
        self.store_doors = StoreDoors(self._has_to_wait, self._log_of, on_work=self.cpus.worked_for)
        self.store_rings = StoreRings(self.held, poller, self.store_doors)
        self.store_sockets = StoreSockets(self.held, poller, self.store_doors, self._by_pid, self._log_of)
        self.trace = TraceBuffers(self.held)
        self.bells = Bells(self.held, lambda: self.hypervisor)
        self.heart = Heart(self.bells)
        self.faults = FaultEffects(self.held, self.signal_domain, self.deny)
        self.console_log = ConsoleLog(inheritance.run_dir, poller, self.cpus.worked_for)
        self.audit_log = AuditLog(inheritance.run_dir)
        self.upcalls = UpcallSockets(
            self.held, poller, self.publisher.log, kill=self._kill,
            on_fault=listeners.on_fault, on_post=listeners.on_post, is_disturbed=self.faults.of_messages.__contains__,
            is_settling=self._is_settling, on_drop=self.cpus.worked_for, ring=self._ring,
            read=lambda domid, path: brought_by_event(self.hypervisor.store, domid, path),
        )  # fmt: skip
        self.spares = SpareProcesses(
            self.held, self.endpoints, poller, inheritance, listeners.on_spare_report
        )
        self.refusals: list[Refusal] = []
        self.runs: list[DomId] = []
        """Who may run when the command that says so is in the journal: ahead of what others hear, who wait for it.

        But behind those whose backends they are: what they have to publish has a longer way, and is waited for.
        """
        self.hurries: dict[DomId, Domain] = {}
        """Whose backends have died, and may have been offered again: they hear of it next, and the others then."""
        self.unsettled: list[Callable[[], None]] = []
        """What waits for that as well."""
        self.left: list[Callable[[], None]] = []
        """What nobody waits for."""
        self.left_since_ns: int | None = None
        """Since when there is something for `clear_away`, if somebody waits for the broker meanwhile."""
        self.news: list[Event] = []
        """What is published behind all that."""
        self._hoard_at = 0.0  # when a hoard is to be looked for, on the monotonic clock
        self._hypervisor: Hypervisor | None = None

    def connect(self, hypervisor: Hypervisor) -> None:
        """The tables whose keys and queues this world serves."""
        self._hypervisor = hypervisor
        self.upcalls.connect(hypervisor.upcalls)
        self.publisher.connect(lambda: (hypervisor.booted_ns, hypervisor.events.last))
        hypervisor.attach(self)

    def listen_for_host(self) -> None:
        """dom0's XenStore socket for the host's programs; a broker that cannot have it is none."""
        self.store_sockets.listen(HOST, self.endpoints.make_directory(XENSTORED))

    @property
    def hypervisor(self) -> Hypervisor:
        assert self._hypervisor is not None
        return self._hypervisor

    # ---- domains -----------------------------------------------------------------------------------------------------

    def create_domain(self, domid: DomId) -> None:
        self.ready_made.taken()
        with self.noting_refusal("domain", domid):
            self.held.create_domain(domain_key(domid))

    @property
    def lacks_ready(self) -> bool:
        """Whether something is to be made for the next domain: not while everybody waits for domain 0."""
        dom0 = self.hypervisor.domains.get(DOM0)
        return self.ready_made.lacks(DomId(self.hypervisor.next_domid)) and dom0 is not None and dom0.ready

    def may_make_ready(self, *, idle: bool) -> bool:
        """Whether it is made now: when nobody asks for anything, or nobody has been born for long."""
        return self.lacks_ready and (idle or self.ready_made.is_overdue)

    def make_ready(self) -> None:
        domid = DomId(self.hypervisor.next_domid)
        self.ready_made.make(domid, self.hypervisor.secret_key(domid, FIRST))

    def release_domain(self, domid: DomId) -> None:
        """Whatever of it there is: it may have been refused half-way, or we have not come to hear it yet."""
        self._do_what_is_left()
        self.heart.end(domid)
        self.console_log.forget(domid)
        self.cpus.forget(domid)
        self.audit_log.forget(domid)
        self.endpoints.retire(domid)
        self.upcalls.forget(domid)
        self.store_doors.disconnect(domid)
        self.store_rings.detach(domid)
        self.store_sockets.release(domid)
        self.held.drop(domain_key(domid))

    def fork_domain(self, domain: Domain) -> None:
        """Ask the machine for its process, which waits for its birth."""
        descriptors = self.held.by_key[domain_key(domain.domid)]
        order = spawn_order(domain, domain.incarnation)
        self.tell_machine(order, (descriptors[UPCALL_DOMAIN], descriptors[STDIO_DOMAIN]))

    def start_domain(self, domain: Domain) -> None:
        """Make its endpoint's directory, set its clock and its trace: it may be born."""
        secret = self._secret_of(domain)
        with self.noting_refusal("start", domain.domid):
            self.endpoints.prepare(domain.domid, domain.incarnation, secret)
            self.bells.serve(domain, self.inheritance.brokers_before)
            self.update_shared_info(domain)
            self.switch_wanted_trace(domain)

    def open_endpoint(self, domain: Domain) -> None:
        """Bind the endpoint of this incarnation: for a new one, or again in a new broker."""
        with self.noting_refusal("endpoint", domain.domid):
            self.endpoints.open(domain.domid)
        self.listen(domain)

    def listen(self, domain: Domain) -> None:
        """To what it has to say before it is ready, and to the rest."""
        self.open_store_socket(domain)
        self.listen_to_rest(domain)
        self.upcalls.listen(domain)

    def open_store_socket(self, domain: Domain) -> None:
        """Where its programs ask the store from their first line on."""
        self.store_sockets.listen(domain.domid, self.endpoints.directory_of(domain.domid))

    def listen_to_rest(self, domain: Domain) -> None:
        """To what it prints; where it runs is what we follow."""
        self.cpus.learn(domain.domid, domain.config.cpus)
        self.console_log.attach(domain.domid, domain.name, self.held.by_key[domain_key(domain.domid)][STDIO])

    def deliver_birth(self, domain: Domain) -> None:
        """Tell a process which domain it is, and what it is born with: it readies itself, and runs nothing yet."""
        endpoint = self.endpoints.name(domain.domid, domain.incarnation)
        server_key = self.endpoints.public_key(domain.domid)
        certificate = birth_certificate(
            self.hypervisor, domain, domain.incarnation, run_dir=self.inheritance.run_dir, endpoint=endpoint,
            server_key=server_key, spare=False,
        )  # fmt: skip
        born_with = self.hypervisor.console_descriptors(domain)
        descriptors = birth_descriptors(self.held, domain_key(domain.domid), *born_with)
        self.upcalls.tell(domain.domid, [BIRTH, certificate], descriptors)

    def let_run(self, domain: Domain) -> None:
        self.runs.append(domain.domid)

    def _let_run(self, domid: DomId) -> None:
        """From here on it runs: the journal knows it. Nothing if it was abandoned in the same command."""
        if domain_key(domid) in self.held.by_key:
            *before, last = ahead.messages(self.hypervisor.domains[domid].ahead)
            for entries, references in before:
                self.upcalls.tell_with(domid, [AHEAD, entries], references)
            self.upcalls.tell_with(domid, [RUN, self._served(domid), last[0]], last[1])
            self.heart.begin(self.hypervisor.domains[domid], time.monotonic_ns())

    def _served(self, domid: DomId) -> list[list[str]]:
        """The devices that whoever is let run finds below its `backend`: so it need not look for them."""
        hypervisor = self.hypervisor
        domain = hypervisor.domains[domid]
        return devices.served(hypervisor.store, domain, hypervisor.client_devices(domain))

    def settle(self) -> None:
        """The command is in the journal: do what cannot be taken back.

        Where guests wait for a driver domain that has died, what nobody waits for is left for `clear_away`.
        """
        for domain in self.hurries.values():
            self.upcalls.hurry(domain)
            self._tell_events(domain.domid)
        runs, self.runs = self.runs, []
        for domid in runs:
            self._let_run(domid)
        if self.hurries and self.left_since_ns is None:
            self.left_since_ns = time.monotonic_ns()
        if self.unsettled:
            waiting, self.unsettled = self.unsettled, []
            for act in waiting:
                act()
        self.hurries.clear()
        self.store_doors.flush()
        if self.left_since_ns is None:
            self.clear_away()

    def clear_away(self) -> None:
        """What is left of what has been settled: a console to read, descriptors to let go of, news for the public."""
        self.left_since_ns = None
        self._do_what_is_left()
        self.held.settle()
        if self.news:
            news, self.news = self.news, []
            for event in news:
                self.publisher.publish(event)

    def _do_what_is_left(self) -> None:
        left, self.left = self.left, []
        for act in left:
            act()

    def heartbeat(self, domid: DomId) -> str:
        return self.heart.verdict(domid)

    def update_shared_info(self, domain: Domain) -> None:
        clock = domain.clock
        wall_base = time.time_ns() - (time.monotonic_ns() - clock.started_ns)
        page = self.held.shared_info(domain_key(domain.domid))
        write_time_info(page, TimeInfo(clock.started_ns, clock.paused_ns, wall_base, domain.domid, domain.incarnation))
        page.close()

    # ---- the upcall socket -------------------------------------------------------------------------------------------

    def send_descriptors(self, domid: DomId, sequence: int, references: tuple[tuple[str, int], ...]) -> None:
        """The descriptors that answer a hypercall, ahead of its reply; each broker sends them once."""
        self.upcalls.send_descriptors(domid, sequence, references)

    def events_pending(self, domid: DomId) -> None:
        self.unsettled.append(lambda: None if domid in self.hurries else self._tell_events(domid))

    def hurry(self, domain: Domain) -> None:
        self.hurries[domain.domid] = domain

    def _tell_events(self, domid: DomId) -> None:
        """Feed the domain's socket with what its queue holds, and ring its upcall port, unless it ended meanwhile."""
        if domain_key(domid) in self.held.by_key:
            self.upcalls.flush(domid)
            self._ring(domid)

    def _ring(self, domid: DomId) -> None:
        port = self.hypervisor.birth_ports(self.hypervisor.domains[domid])[1]
        binding = self.hypervisor.channels.ports[domid].get(port)
        if binding is not None:
            self.held.endpoint(binding.channel, binding.side).notify()

    def _end_flood(self, domid: DomId, by_spare: bool) -> None:
        """A domain that connects without end goes, or its spare."""
        most = f"{CONNECTIONS_MAX} times, or {CONNECTIONS_AT_ONCE_MAX} times at once"
        self._kill_for(f"has connected more than {most}", domid, by_spare)

    def end_hoard(self) -> None:
        """A domain goes, or its spare, that has us keep what never becomes a message. However busy we are."""
        if time.monotonic() < self._hoard_at:
            return
        if (found := self.endpoints.hoarder()) is not None:
            self._kill_for("sends messages that have no end", *found)
        self._hoard_at = time.monotonic() + BEAT_EVERY_S

    def _kill_for(self, what: str, domid: DomId, by_spare: bool) -> None:
        self.publisher.log(f"{'its spare' if by_spare else 'it'} {what}: killed", domid=domid)
        if by_spare:
            self.tell_machine(self.spares.kill_order(self.hypervisor.domains[domid]))
        else:
            self._kill(domid)

    def _secret_of(self, domain: Domain) -> bytes:
        return self.hypervisor.secret_key(domain.domid, domain.incarnation)

    def _kill(self, domid: DomId) -> None:
        """At once: no command asks for it."""
        self.tell_machine([SIGNAL, domid, self.hypervisor.domains[domid].incarnation, SIGKILL])

    # ---- refusals ----------------------------------------------------------------------------------------------------

    @contextmanager
    def noting_refusal(self, what: str, number: int) -> Iterator[None]:
        """A no of the host's becomes part of the command."""
        try:
            yield
        except OSError as error:
            self.refusals.append([what, number, error.errno or errno.EIO])
            raise

    # ---- XenStore's doors --------------------------------------------------------------------------------------------

    def _is_settling(self, domid: DomId) -> bool:
        return self.hypervisor.store.is_settling(domid)

    def _has_to_wait(self, domid: DomId) -> bool:
        return self.hypervisor.store.has_to_wait(domid)

    def _by_pid(self) -> dict[int, DomId]:
        return {domain.pid: domain.domid for domain in self.hypervisor.domains.values() if domain.pid is not None}

    def _log_of(self, text: str, domid: DomId) -> None:
        self.publisher.log(text, domid=domid)

    # ---- the machine and the public ----------------------------------------------------------------------------------

    def write_log(self, domain: Domain, line: str) -> None:
        self.console_log.write(domain.name, line)

    def audit(self, source: DomId, line: str) -> None:
        self.audit_log.note(source, line)

    def publish(self, event: Event) -> None:
        self.news.append(event)

    def stop_machine(self, *, reboot: bool) -> None:
        """Noted: the reply to whoever asked goes out first."""
        self.stop_requested = reboot

    def say_goodbye(self) -> None:
        """Let the last replies and news out, then have the machine end everything, us among it."""
        self.clear_away()
        self.publisher.finish_log()
        self._context.destroy(linger=GOODBYE_MS)
        self.tell_machine([STOP, self.stop_requested])
        signal.pause()

    def physinfo(self) -> dict[str, Any]:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGESIZE")
        return {
            "cpus": os.cpu_count(), "memory_kib": pages * size // 1024, "broker_pid": os.getpid(),
            "machine_pid": self.inheritance.machine_pid, "broker_restarts": self.inheritance.brokers_before,
            "descriptors": self.held.count(), "made_ahead": not self.lacks_ready, "run_dir": self.inheritance.run_dir,
            "xenstored_socket": f"{self.inheritance.run_dir}/{XENSTORED}/{STORE_SOCKET}",
        }

    def disown(self, domid: int, incarnation: int) -> None:
        """A process that has no place in the tables: as if it had never been."""
        self.tell_machine([DISOWN, domid, incarnation])

    def tell_machine(self, message: list[Any], descriptors: tuple[int, ...] = ()) -> None:
        send_message(self.inheritance.link, message, descriptors)
