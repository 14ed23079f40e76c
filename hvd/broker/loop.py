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
from hvd.broker.domain import ALIVE, Life, Shutdown
from hvd.broker.held import channel_key, domain_key, extent_key
from hvd.broker.hypervisor import SIGCONT, SIGSTOP, Hypervisor
from hvd.broker.journal import Journal, JournalFull
from hvd.broker.poller import Poller
from hvd.broker.sessions import Reply, Sessions, domain_session, toolstack_session
from hvd.broker.state import CALL, DIED, STARTED, TICK, State, stale
from hvd.broker.world import World
from hvd.transport.codec import BadMessage, decode, pack_reply, unpack_request
from hvd.transport.descriptors import receive_message, send_message
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import DESCRIPTORS_PENDING_MAX
from hvd.transport.machine_link import SIGNAL, UP, Inheritance
from hvd.transport.messages import DomainConfig

JOURNAL = "journal"
CALLS_PER_TURN = 8
"""Hypercalls of one caller before the next caller has its turn."""
POISON_ATTEMPTS = 2
"""Brokers that a hypercall may take down before its sender is taken down instead."""


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
        self._world = World(inheritance, self._poller, self._mark_ready)
        inherited = inheritance.held.get(JOURNAL)
        if inherited is None:
            self._state = self._boot(inheritance)
            self._take_snapshot()
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
            self._poller.poll(0 if self._ready else self._wait_s())
            self._tick()
            for _ in range(len(self._ready)):
                self._serve(self._ready.popleft())
            if self._world.stop_requested is not None:
                self._world.say_goodbye()

    # ---- coming to life ----------------------------------------------------------------------------------------------

    def _boot(self, inheritance: Inheritance) -> State:
        """A machine that was just switched on: nothing is held, dom0 first."""
        now = time.monotonic_ns()
        for key in inheritance.held:
            self._world.held.drop(key)
        hypervisor = Hypervisor(os.urandom(32), now)
        self._world.connect(hypervisor)
        for untrusted_fields in msgpack.unpackb(inheritance.configuration):
            hypervisor.create(decode(DomainConfig, untrusted_fields, "domain"), now)
        return State(hypervisor, Sessions())

    def _recover(self, inheritance: Inheritance) -> State:
        """Rebuild the tables from the journal, then make the world agree with them."""
        state = State.restore(list(self._journal.records()))
        self._state = state
        self._world.connect(state.hypervisor)
        self._judge_intent(state)
        self._world.held.drop_unknown(self._known_keys(state.hypervisor))
        self._reconcile(state.hypervisor, inheritance)
        self._world.publisher.log("recovered", broker=os.getpid(), domains=len(state.hypervisor.domains))
        self._world.announce("broker restarted", None, str(inheritance.brokers_before))
        return state

    def _judge_intent(self, state: State) -> None:
        """A hypercall that a second broker was found dead over takes its sender down, not a third broker."""
        intent = self._journal.intent()
        if intent is None:
            return
        if intent.attempts < POISON_ATTEMPTS:
            self._journal.open_intent(intent.session, intent.sequence, intent.attempts + 1)
            return
        self._journal.close_intent()
        answer = Reply(intent.sequence, errno.EIO, "this hypercall has crashed the broker twice")
        state.sessions.remember(intent.session, answer)
        for domain in state.hypervisor.domains.values():
            if intent.session == domain_session(domain.domid, domain.incarnation) and domain.life in ALIVE:
                domain.shutdown = Shutdown.CRASH
                domain.shutdown_text = f"its hypercall {intent.sequence} crashed the broker twice"
                self._world.signal_domain(domain, 9)

    def _known_keys(self, hypervisor: Hypervisor) -> set[str]:
        keys = {JOURNAL}
        keys |= {channel_key(b.channel) for ports in hypervisor.channels.ports.values() for b in ports.values()}
        keys |= {extent_key(extent) for table in hypervisor.grants.tables.values() for extent in table.extents}
        keys |= {domain_key(d.domid) for d in hypervisor.domains.values() if d.life in ALIVE}
        return keys

    def _reconcile(self, hypervisor: Hypervisor, inheritance: Inheritance) -> None:
        """What the dead broker had not got round to: processes, endpoints, births, events, rings of bells."""
        now = time.monotonic_ns()
        alive = {(domid, incarnation): pid for domid, incarnation, pid in inheritance.alive}
        for domid, incarnation in alive:
            domain = hypervisor.domains.get(DomId(domid))
            if domain is None or domain.incarnation != incarnation:
                send_message(self._link, [SIGNAL, domid, incarnation, 9])
        for domain in list(hypervisor.domains.values()):
            if domain.life not in ALIVE:
                continue
            pid = alive.get((domain.domid, domain.incarnation))
            if pid is None and domain.pid is None:
                self._world.start_domain(domain)
            else:
                self._world.open_endpoint(domain)
            if pid is not None and domain.life is Life.STARTING:
                self._command([STARTED, now, domain.domid, domain.incarnation, pid])
            if pid is None and domain.pid is not None:
                self._command([DIED, now, domain.domid, domain.incarnation, "died while there was no broker"])
                continue
            self._world.signal_domain(domain, {Life.PAUSED: SIGSTOP, Life.DYING: 9}.get(domain.life, SIGCONT))
            session = domain_session(domain.domid, domain.incarnation)
            if session not in self._state.sessions.last and domain.life is not Life.PAUSED:
                self._world.deliver_birth(domain)
            hypervisor.upcalls[domain.domid].send_again()
            self._world.events_pending(domain.domid)
        for ports in hypervisor.channels.ports.values():
            for binding in ports.values():
                self._world.raise_end(binding.channel, binding.side)

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _command(self, command: list[Any]) -> None:
        """Apply a command that is no hypercall, and journal it."""
        self._state.apply(command)
        self._record(command)

    def _record(self, command: list[Any]) -> None:
        try:
            self._journal.append(msgpack.packb(command))
        except JournalFull:
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        """A new journal in the old one's place; the machine's copy is swapped in one message."""
        self._journal = Journal.create(self._state.snapshot())
        self._world.held.hold(JOURNAL, [self._journal.descriptor])

    def _tick(self) -> None:
        due = self._state.hypervisor.next_deadline_ns()
        if due is not None and due <= time.monotonic_ns():
            self._command([TICK, time.monotonic_ns()])

    def _wait_s(self) -> float | None:
        due = self._state.hypervisor.next_deadline_ns()
        return None if due is None else max(0.0, (due - time.monotonic_ns()) / 1e9)

    # ---- what comes in -----------------------------------------------------------------------------------------------

    def _read_link(self) -> None:
        received = receive_message(self._link)
        if received is None:
            os._exit(0)  # the machine is gone, and with it everything
        match received[0]:
            case [verb, int() as domid, int() as incarnation, int() as pid] if verb == STARTED:
                self._command([STARTED, time.monotonic_ns(), domid, incarnation, pid])
            case [verb, int() as domid, int() as incarnation, str() as how] if verb == DIED:
                self._command([DIED, time.monotonic_ns(), domid, incarnation, how])

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
            reply = self._answer(domid, client, body)
            if reply is not None:
                server.reply(client, pack_reply(reply.sequence, reply.errno, reply.value, len(reply.descriptors)))
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
        last = self._state.sessions.reply(session)
        if last is not None and sequence < last.sequence:
            return stale(sequence, last.sequence)
        if last is not None and sequence == last.sequence:
            reply = last
        else:
            self._state.acknowledge(caller, session, events, descriptors)
            reply = self._carry_out(session, caller, sequence, message, body)
        if reply.descriptors and domid is not None:
            self._world.send_descriptors(domid, sequence, reply.descriptors)
        return reply

    def _session(self, domid: DomId) -> str | None:
        domain = self._state.hypervisor.domains.get(domid)
        if domain is None or domain.life not in (Life.STARTING, Life.RUNNING, Life.PAUSED):
            self._world.publisher.log("hypercall of a dead domain dropped", domid=domid)
            return None
        return domain_session(domid, domain.incarnation)

    def _carry_out(self, session: str, caller: DomId, sequence: int, message: Any, body: bytes) -> Reply:
        queue = self._state.hypervisor.upcalls.get(caller)
        if queue is not None and queue.descriptors_sent - queue.descriptors_received >= DESCRIPTORS_PENDING_MAX:
            text = f"{DESCRIPTORS_PENDING_MAX} descriptors wait on the upcall socket: read them first"
            return Reply(sequence, errno.EAGAIN, text)
        now = time.monotonic_ns()
        attempts = self._attempts(session, sequence)
        self._journal.open_intent(session, sequence, attempts)
        reply = self._state.call(session, caller, sequence, message, now)
        if is_journaled(message):
            self._record([CALL, now, session, caller, body])
        self._journal.close_intent()
        return reply

    def _attempts(self, session: str, sequence: int) -> int:
        intent = self._journal.intent()
        return intent.attempts if intent is not None and (intent.session, intent.sequence) == (session, sequence) else 1
