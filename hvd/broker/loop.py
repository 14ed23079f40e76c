"""The broker's loop: hypercalls carried out round robin, journaled, answered; deaths; time; return from its own."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections import deque
from typing import Any

import msgpack

from hvd.broker.dispatch import is_journaled
from hvd.broker.domain import ACTING, ALIVE, Domain, Life
from hvd.broker.held import channel_key, domain_key, extent_key, medium_key, trace_key
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.journal import Intent, Journal, JournalFull
from hvd.broker.lives import SIGCONT, SIGKILL, SIGSTOP
from hvd.broker.poller import Poller
from hvd.broker.sessions import Reply, Sessions, domain_session, toolstack_session
from hvd.broker.state import AUDITED, CALL, DIED, FAULTED, FOUND_OPEN, STARTED, TICK, TRACE_OVER, State
from hvd.broker.tracing import Phase
from hvd.broker.world import World
from hvd.broker.xsm import Xsm
from hvd.transport.codec import BadMessage, decode, is_post, unpack_request
from hvd.transport.descriptors import receive_message, send_message
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import DOM0, DomId, Incarnation
from hvd.transport.limits import DESCRIPTORS_PENDING_MAX
from hvd.transport.machine_link import DISOWNED, UP, Inheritance
from hvd.transport.messages import BootConfig
from hvd.transport.trace import HYPERVISOR

JOURNAL = "journal"
KILLED_FROM_OUTSIDE = "killed by SIGKILL"
"""How a broker ends that did nothing wrong itself."""
WAIT_MOST_S = 3600.0
"""A guest's timer may lie in any future; epoll takes 24 days at most."""
CALLS_PER_TURN = 8
"""Hypercalls of one caller before the next caller has its turn."""


def run_broker(inheritance: Inheritance) -> None:
    """The broker process, from fork to death."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Broker(inheritance).run()


class Broker:
    """One broker's life."""

    def __init__(self, inheritance: Inheritance) -> None:
        self._link = inheritance.link
        self._poller = Poller()
        self._ready: deque[DomId | None] = deque()
        self._disowned: set[tuple[int, int]] = set()
        self._world = World(inheritance, self._poller, self._mark_ready, self._on_fault, self._on_post)
        inherited = inheritance.held.get(JOURNAL)
        if inherited is None:
            self._state = self._boot(inheritance)
            self._take_snapshot()
            self._world.settle()
        else:
            self._journal = Journal(inherited[0])
            self._state = self._recover(inheritance)
        self._poller.watch(self._link.fileno(), self._read_link)
        self._link.setblocking(True)

    def run(self) -> None:
        """Serve until killed."""
        send_message(self._link, [UP])
        self._world.publisher.start_logging()
        while True:
            if self._world.stop_requested is not None:
                self._world.say_goodbye()
            self._poller.poll(0 if self._ready else self._wait_s())
            self._tick()
            for _ in range(len(self._ready)):
                self._serve(self._ready.popleft())
            self._write_audit()
            self._world.publisher.write_log()

    # ---- coming to life ----------------------------------------------------------------------------------------------

    def _boot(self, inheritance: Inheritance) -> State:
        """A machine that was just switched on: dom0 first. What is held, a broker left that died while it did this."""
        now = time.monotonic_ns()
        self._world.held.drop_unknown(set())
        boot = decode(BootConfig, msgpack.unpackb(inheritance.configuration), "configuration")
        hypervisor = Hypervisor(os.urandom(32), now, xsm=Xsm(boot.policy, enforcing=boot.enforcing))
        self._world.connect(hypervisor)
        for config in boot.domains:
            hypervisor.create(config, now)
        return State(hypervisor, Sessions())

    def _recover(self, inheritance: Inheritance) -> State:
        """Rebuild the tables from the journal, then make the world agree with them."""
        state = State.restore(list(self._journal.records()))
        self._state = state
        self._world.connect(state.hypervisor)
        self._world.held.drop_unknown(self._known_keys(state.hypervisor))
        self._world.stop_requested = state.hypervisor.stopping
        for queue in state.hypervisor.upcalls.values():
            queue.send_again()
        if state.hypervisor.tracing.phase is not Phase.OFF:
            self._world.start_trace()
        intent = self._journal.intent()
        self._reconcile(state.hypervisor, inheritance)
        self._judge_intent(intent, inheritance)
        self._world.publisher.log("recovered", broker=os.getpid(), domains=len(state.hypervisor.domains))
        self._world.announce("broker restarted", None, str(inheritance.brokers_before))
        return state

    def _judge_intent(self, intent: Intent | None, inheritance: Inheritance) -> None:
        """A hypercall that broker after broker is found dead over is refused, and its sender taken down."""
        if intent is None:
            return
        crashed = inheritance.predecessor_end != KILLED_FROM_OUTSIDE
        self._command([FOUND_OPEN, intent.session, intent.sequence, crashed])
        self._journal.close_intent()

    def _known_keys(self, hypervisor: Hypervisor) -> set[str]:
        keys = {JOURNAL}
        keys |= {channel_key(b.channel) for ports in hypervisor.channels.ports.values() for b in ports.values()}
        keys |= {extent_key(extent) for extent in hypervisor.grants.extents()}
        keys |= {medium_key(number) for number in hypervisor.media.opened.values()}
        keys |= {domain_key(d.domid) for d in hypervisor.domains.values() if d.life in ALIVE}
        if hypervisor.tracing.phase is not Phase.OFF:
            keys |= {trace_key(*whose) for whose in (HYPERVISOR, *hypervisor.tracing.kept)}
        return keys

    def _reconcile(self, hypervisor: Hypervisor, inheritance: Inheritance) -> None:
        """What the dead broker had not got round to: processes, endpoints, births, events, rings of bells."""
        now = time.monotonic_ns()
        alive = {(domid, incarnation): pid for domid, incarnation, pid in inheritance.alive}
        for domid, incarnation in alive:
            if not hypervisor.is_expected(DomId(domid), Incarnation(incarnation)):
                self._disown(domid, incarnation)
        for domain in list(hypervisor.domains.values()):
            if domain.life not in ALIVE:
                continue
            process = domain.domid, domain.incarnation
            if process in alive or process not in inheritance.ended:
                self._take_over(domain, alive.get(process), now)
            else:
                self._command([DIED, now, *process, *inheritance.ended[process]])
        for ports in hypervisor.channels.ports.values():
            for binding in ports.values():
                self._world.raise_end(binding.channel, binding.side)
        self._world.settle()

    def _take_over(self, domain: Domain, pid: int | None, now: int) -> None:
        """A domain of the dead broker's: its process runs, or is on its way (0), or has not been asked for (None)."""
        if pid is None:
            self._world.fork_domain(domain)
        self._world.start_domain(domain)
        self._world.open_endpoint(domain)
        if pid and domain.pid is None:
            self._command([STARTED, now, domain.domid, domain.incarnation, pid])
        if domain.life is Life.DUMPING:
            self._world.dump_domain(domain)
        else:
            halt = SIGSTOP if domain.released else SIGCONT
            self._world.signal_domain(domain, {Life.PAUSED: halt, Life.DYING: SIGKILL}.get(domain.life, SIGCONT))
        last = self._state.sessions.reply(domain_session(domain.domid, domain.incarnation))
        if last is None:
            self._world.deliver_birth(domain)
        if domain.released:  # it may have reported its sandbox and still not have been told
            self._world.let_run(domain)
        if last is not None and last.descriptors:
            self._world.send_descriptors(domain.domid, last.sequence, last.descriptors)
        self._world.events_pending(domain.domid)

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _command(self, command: list[Any]) -> None:
        """Apply a command that is no hypercall, journal it, and let it take effect."""
        self._state.apply(command)
        self._record(command)
        self._world.settle()

    def _record(self, command: list[Any]) -> None:
        try:
            self._journal.append(self._state.record(command))
        except JournalFull:
            self._journal.close()
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        """A new journal in the old one's place; the machine's copy is swapped in one message."""
        self._journal = Journal.create(self._state.snapshot())
        self._world.held.hold(JOURNAL, [self._journal.descriptor])

    def _tick(self) -> None:
        due = self._state.hypervisor.next_deadline_ns()
        if due is not None and due <= time.monotonic_ns():
            self._command([TICK, time.monotonic_ns()])
        lease_s = self._world.trace.lease_left_s()
        if lease_s is not None and lease_s <= 0:
            self._command([TRACE_OVER])

    def _write_audit(self) -> None:
        """What the policy denied, onto the hypervisor's console: a command of its own, as reads have no record."""
        for line in self._world.audit_log.take():
            self._command([AUDITED, line])

    def _wait_s(self) -> float | None:
        due, lease_s = self._state.hypervisor.next_deadline_ns(), self._world.trace.lease_left_s()
        waits = [] if due is None else [(due - time.monotonic_ns()) / 1e9]
        waits += [] if lease_s is None else [lease_s]
        return min(max(0.0, min(waits)), WAIT_MOST_S) if waits else None

    # ---- what comes in -----------------------------------------------------------------------------------------------

    def _read_link(self) -> None:
        received = receive_message(self._link)
        if received is None:
            os._exit(0)  # the machine is gone, and with it everything
        match received[0]:
            case [verb, int() as domid, int() as incarnation] if verb == DISOWNED:
                self._disowned.discard((domid, incarnation))
            case [_, int() as domid, int() as incarnation, *_] if (domid, incarnation) in self._disowned:
                return
            case [verb, int() as domid, int() as incarnation, int() as pid] if verb == STARTED:
                if self._state.hypervisor.is_expected(DomId(domid), Incarnation(incarnation)):
                    self._command([STARTED, time.monotonic_ns(), domid, incarnation, pid])
                else:
                    self._disown(domid, incarnation)
            case [verb, int() as domid, int() as incarnation, str() as how, str() as core] if verb == DIED:
                if self._state.hypervisor.is_expected(DomId(domid), Incarnation(incarnation)):
                    self._hear_first(DomId(domid))
                self._command([DIED, time.monotonic_ns(), domid, incarnation, how, core])

    def _on_fault(self, domain: Domain, notice: FaultNotice | None) -> None:
        self._command([FAULTED, domain.domid, domain.incarnation, notice.as_list() if notice is not None else []])

    def _on_post(self, domain: Domain, body: bytes) -> None:
        """A hypercall of one that comes to life: answered the way it came, or in the log when nobody waits for it."""
        reply = self._answer(domain.domid, b"", body)
        if reply is None:
            return
        if not is_post(body):
            self._world.reply(domain.domid, reply.sequence, reply.packed())
        elif reply.errno:
            self._world.publisher.log("posted hypercall refused", domid=domain.domid, reason=str(reply.value))

    def _hear_first(self, domid: DomId) -> None:
        """What a domain that is not ready has posted comes before what it calls, and before its death."""
        domain = self._state.hypervisor.domains.get(domid)
        if domain is not None and not domain.ready and domain.life in ACTING:
            self._world.hear(domain)

    def _disown(self, domid: int, incarnation: int) -> None:
        """A process that no table knows goes, and what the machine says of it until it has heard us is not for us."""
        self._disowned.add((domid, incarnation))
        self._world.disown(domid, incarnation)

    def _mark_ready(self, domid: DomId | None) -> None:
        if domid not in self._ready:
            self._ready.append(domid)

    def _serve(self, domid: DomId | None) -> None:
        """One caller's turn; whoever has more to say goes to the end of the line."""
        for _ in range(CALLS_PER_TURN):
            server = self._world.endpoints.server(domid)
            received = server.receive() if server is not None else None
            if server is None or received is None:
                return
            client, body = received
            if domid is not None:
                self._hear_first(domid)
            reply = self._answer(domid, client, body)
            if reply is not None:
                server.reply(client, reply.packed())
        self._mark_ready(domid)

    def _answer(self, domid: DomId | None, client: bytes, body: bytes) -> Reply | None:
        """The reply to one request; None when its sender is not to hear from us again."""
        caller = DOM0 if domid is None else domid
        session = toolstack_session(client) if domid is None else self._session(domid)
        if session is None:
            return None
        try:
            sequence, events, descriptors, message = unpack_request(body)
        except BadMessage as error:
            self._world.publisher.log("bad hypercall", domid=caller, session=session, reason=str(error))
            return Reply(error.sequence, errno.EBADMSG, str(error))
        reply = self._state.repeated(session, sequence)
        if reply is None:
            self._state.acknowledge(caller, session, events, descriptors)
            self._world.trace.hypercall(domid, message.NUMBER, sequence)
            reply = self._carry_out(session, caller, sequence, message, body)
            self._world.trace.hypercall_done(domid, message.NUMBER, sequence, reply.errno)
        if reply.descriptors and domid is not None:
            self._world.send_descriptors(domid, sequence, reply.descriptors)
        return reply

    def _session(self, domid: DomId) -> str | None:
        domain = self._state.hypervisor.domains.get(domid)
        if domain is None or domain.life not in ACTING:
            self._world.publisher.log("hypercall of a dead domain dropped", domid=domid)
            return None
        return domain_session(domid, domain.incarnation)

    def _carry_out(self, session: str, caller: DomId, sequence: int, message: Any, body: bytes) -> Reply:
        queue = self._state.hypervisor.upcalls.get(caller)
        if queue is not None and queue.descriptors_sent - queue.descriptors_received >= DESCRIPTORS_PENDING_MAX:
            text = f"{DESCRIPTORS_PENDING_MAX} descriptors wait on the upcall socket: read them first"
            return Reply(sequence, errno.EAGAIN, text)
        now = time.monotonic_ns()
        self._journal.open_intent(session, sequence)
        reply = self._state.call(session, caller, sequence, message, now)
        if is_journaled(message):
            self._record([CALL, now, session, caller, body])
        self._journal.close_intent()
        self._world.settle()
        self._write_audit()
        return reply
