"""The broker's loop: hypercalls carried out round robin, journaled, answered; deaths; time; return from its own."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections import deque
from typing import Any

import msgpack

from hvd.broker import garbage
from hvd.broker.admission import refusal
from hvd.broker.dispatch import is_journaled
from hvd.broker.domain import ACTING, Domain
from hvd.broker.groups import Groups
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.ledger import LEFT_BY_ANYBODY, Ledger
from hvd.broker.listeners import Listeners
from hvd.broker.lives import SIGKILL
from hvd.broker.message_faults import MessageFault, Request
from hvd.broker.networks import Networks
from hvd.broker.poller import Poller
from hvd.broker.recovery import Recovery
from hvd.broker.sessions import Reply, Sessions, domain_session, toolstack_session
from hvd.broker.state import (
    AUDITED,
    CALL,
    DIED,
    DUMPED,
    FAULTED,
    HUNG,
    SPARE_REPORTS,
    STARTED,
    STORE_CLOSED,
    STORE_SETTLE,
    TICK,
    TRACE_OVER,
    State,
)
from hvd.broker.store_requests import StoreRequests
from hvd.broker.withheld import Withheld
from hvd.broker.world import World
from hvd.broker.xsm import Xsm
from hvd.transport.codec import BadMessage, decode, is_post, may_ask_the_store, unpack_request
from hvd.transport.descriptors import receive_message, send_message
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.faults import FaultKind
from hvd.transport.hypercalls import HypercallServer
from hvd.transport.ids import DOM0, DomId, Incarnation
from hvd.transport.machine_link import DISOWNED, REAPED, UNBOUND, UP, ZYGOTE_DIED, Inheritance, uplink_key
from hvd.transport.messages import BootConfig
from hvd.transport.pulse import BEAT_EVERY_S

QUIET_NS = 5_000_000
"""Nobody has wanted anything for so long: there is time to clear away."""
LEFT_NS = 5_000_000
"""So long what nobody waits for is left while somebody asks for something."""
CALLS_PER_TURN, TURN_NS = 8, 200_000
"""Hypercalls of one caller before the next one's turn, or those behind which it has lasted so long: some cost more."""


def run_broker(inheritance: Inheritance) -> None:
    """The broker process, from fork to death."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    inheritance.pulse.beat()
    garbage.look_at_the_young_only()
    Broker(inheritance).run()


class Broker:
    """One broker's life."""

    def __init__(self, inheritance: Inheritance) -> None:
        self._link = inheritance.link
        self._pulse = inheritance.pulse
        self._poller = Poller()
        self._ready: deque[DomId | None] = deque()
        self._due_ns: int | None = None
        self._first_ns = 0
        self._disowned: set[tuple[int, int]] = set()
        self._withheld = Withheld()
        listeners = Listeners(self._on_fault, self._on_post, self._on_spare)
        self._world = World(inheritance, self._poller, self._mark_ready, listeners)
        self._ledger = Ledger(self._world.held, self._world.publisher.log)
        self._recovery: Recovery | None = None
        if self._ledger.is_new:
            self._state = self._boot(inheritance)
            self._ledger.take_snapshot(self._state)
            self._world.settle()
        else:
            self._state, self._recovery = self._recover(inheritance)
        self._world.store_doors.serve_by(StoreRequests(self._state, self._ledger, self._world))
        self._poller.watch(self._link.fileno(), self._read_link)
        self._link.setblocking(True)

    def run(self) -> None:
        """Serve until killed."""
        send_message(self._link, [UP])
        self._world.publisher.start_logging()
        while True:
            self._pulse.beat()
            if self._world.stop_requested is not None:
                self._world.say_goodbye()
            idle = not self._hear()
            self._clear_away(idle=idle)
            if time.monotonic_ns() >= self._first_ns:
                self._tick()
                self._serve_late()
            self._world.end_hoard()
            for _ in range(len(self._ready)):
                self._serve(self._ready.popleft())
            self._world.store_doors.serve_ready()
            for connection in self._world.store_doors.take_ended():
                self._command([STORE_CLOSED, time.monotonic_ns(), connection.domid, connection.number])
            if self._state.hypervisor.store.awaits_settling:
                self._command([STORE_SETTLE, time.monotonic_ns()])
            elif self._state.hypervisor.store.has_remains:
                self._state.hypervisor.store.let_go()
            self._write_audit()
            self._world.publisher.write_log()
            if self._recovery is not None and self._recovery.is_due:
                self._recovery = self._recovery.go_on()
            elif self._ledger.is_drafting:
                self._ledger.go_on()
            elif idle:
                self._ledger.tidy(self._state)
            if self._recovery is None and self._world.may_make_ready(idle=idle):
                self._world.make_ready()

    def _hear(self) -> bool:
        """Hear whoever asks; whether somebody did, something is left to do, or it has not been quiet long enough.

        After requests to XenStore that leave nothing to do it waits again at once, until something is due.
        """
        due_s, busy, doors = self._wait_s(), self._is_busy(), self._world.store_doors
        wait_s, doors.plain_turns = 0.0 if busy else due_s, 0
        whole = busy or self._world.endpoints.retired > 0 or self._world.left_since_ns is not None
        while heard := self._poller.poll(wait_s):
            if whole or heard != doors.plain_turns or self._ledger.is_drafting:
                return True
            wait_s, doors.plain_turns = (self._first_ns - time.monotonic_ns()) / 1e9, 0
            if wait_s <= 0:
                return True
        return wait_s * 1e9 < QUIET_NS

    def _is_busy(self) -> bool:
        """Whether there is something to do before anything more has come in."""
        store, recovery = self._state.hypervisor.store, self._recovery
        waiting = bool(self._ready) or self._ledger.is_drafting or (recovery is not None and recovery.is_due)
        return waiting or self._world.store_doors.has_more or store.awaits_settling or store.has_remains

    def _clear_away(self, *, idle: bool) -> None:
        """What is left of the dead and in nobody's way."""
        since_ns, endpoints = self._world.left_since_ns, self._world.endpoints
        if since_ns is not None and (idle or time.monotonic_ns() - since_ns > LEFT_NS):
            self._world.clear_away()
        if endpoints.retired and (idle or endpoints.retired_is_overdue):
            endpoints.close_retired()

    # ---- coming to life ----------------------------------------------------------------------------------------------

    def _boot(self, inheritance: Inheritance) -> State:
        """A machine that was just switched on: dom0 first. What is held, a broker left that died while it did this."""
        now = time.monotonic_ns()
        boot = decode(BootConfig, msgpack.unpackb(inheritance.configuration), "configuration")
        networks = Networks(boot.networks)
        self._world.held.drop_unknown(set(map(uplink_key, networks.uplinks())))
        for domid, incarnation, _ in inheritance.alive:
            self._disown(domid, incarnation)
        policy, wall_base_ns = Xsm(boot.policy, enforcing=boot.enforcing), time.time_ns() - time.monotonic_ns()
        hypervisor = Hypervisor(
            os.urandom(32), now, xsm=policy, wall_base_ns=wall_base_ns, groups=Groups(boot.groups), networks=networks,
        )  # fmt: skip
        self._world.connect(hypervisor)
        self._world.listen_for_host()
        hypervisor.announce("booted", None, "")
        for config in boot.domains:
            hypervisor.create(config, now)
        return State(hypervisor, Sessions())

    def _recover(self, inheritance: Inheritance) -> tuple[State, Recovery]:
        """Rebuild the tables from the journal, and begin to make the world agree with them."""
        journal = self._ledger.journal
        assert journal is not None
        self._state = state = State.restore(journal.records(), self._pulse.beat)
        self._ledger.has_replayed(state.replayed)
        self._world.connect(state.hypervisor)
        recovery = Recovery(self._world, state, inheritance, self._command, self._disown)
        recovery.begin(journal.intent())
        self._ledger.close_intent()
        self._world.publisher.log("recovered", broker=os.getpid(), domains=len(state.hypervisor.domains))
        return state, recovery

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _command(self, command: list[Any]) -> None:
        """Apply a command that is no hypercall, journal it, and let it take effect."""
        began_ns = time.monotonic_ns()
        self._state.apply(command)
        self._ledger.record(self._state, command, began_ns)
        self._world.settle()

    def _tick(self) -> None:
        """Do what was due when the wait began; what has become due since is next time's, which waits for nothing."""
        self._do_what_is_due()
        for domain, why in self._world.heart.look(time.monotonic_ns()):
            self._command([HUNG, time.monotonic_ns(), domain.domid, domain.incarnation, why])
        if (lease_s := self._world.trace.lease_left_s()) is not None and lease_s <= 0:
            self._command([TRACE_OVER, time.monotonic_ns()])

    def _do_what_is_due(self) -> None:
        if self._due_ns is not None and self._due_ns <= time.monotonic_ns():
            self._command([TICK, time.monotonic_ns()])

    def _write_audit(self) -> None:
        """What the policy denied, onto the hypervisor's console: a command of its own, where there is room for one."""
        for denial in self._world.audit_log.take():
            if self._ledger.has_room(self._state, LEFT_BY_ANYBODY):
                self._command([AUDITED, time.monotonic_ns(), *denial])

    def _wait_s(self) -> float:
        """How long nothing is due: in the tables at `_due_ns`, anywhere at `_first_ns`."""
        world, now_ns = self._world, time.monotonic_ns()
        self._due_ns = self._state.hypervisor.next_deadline_ns()
        wait_ns = int(BEAT_EVERY_S * 1e9)
        late = (fault.due_ns() for fault in world.faults.of_messages.values())
        again = None if self._recovery is None else self._recovery.next_ns
        for at_ns in (self._due_ns, world.heart.next_ns(), again, *late):
            if at_ns is not None and at_ns - now_ns < wait_ns:
                wait_ns = at_ns - now_ns
        if (lease_s := world.trace.lease_left_s()) is not None:
            wait_ns = min(wait_ns, int(lease_s * 1e9))
        self._first_ns = now_ns + wait_ns
        lacks_ready = self._recovery is None and world.lacks_ready
        if world.endpoints.retired or lacks_ready or world.left_since_ns is not None:
            wait_ns = min(wait_ns, QUIET_NS)
        return max(0, wait_ns) / 1e9

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
            case [verb, int() as domid, int() as incarnation, *said] if verb in (DUMPED, REAPED):
                self._command([verb, time.monotonic_ns(), domid, incarnation, *said])
            case [verb, int() as domid, int(), str() as what] if verb == UNBOUND:
                self._world.publisher.log(what, domid=domid)
            case [verb, str() as how] if verb == ZYGOTE_DIED:
                self._command([ZYGOTE_DIED, time.monotonic_ns(), how])
            case [verb, int() as domid, int() as incarnation, str() as how, str() as core] if verb == DIED:
                if self._state.hypervisor.is_expected(DomId(domid), Incarnation(incarnation)):
                    self._world.upcalls.hear_first(self._state.hypervisor.domains.get(DomId(domid)))
                self._command([DIED, time.monotonic_ns(), domid, incarnation, how, core])
                self._due_ns = self._state.hypervisor.next_deadline_ns()
                self._do_what_is_due()  # to let its spare run

    def _on_fault(self, domain: Domain, notice: FaultNotice | None) -> None:
        said = notice.as_list() if notice is not None else []
        self._command([FAULTED, time.monotonic_ns(), domain.domid, domain.incarnation, said])

    def _on_spare(self, domid: DomId, incarnation: Incarnation, lacking: dict[str, str], trouble: str) -> None:
        self._command([SPARE_REPORTS, time.monotonic_ns(), domid, incarnation, lacking, trouble])

    def _on_post(self, domain: Domain, body: bytes) -> None:
        """A hypercall of one that comes to life: answered the way it came, or in the log when nobody waits for it."""
        self._world.cpus.worked_for(domain.domid)
        if (reply := self._answer(domain.domid, b"", body)) is None:
            return
        if not is_post(body):
            self._world.upcalls.reply(domain.domid, reply.sequence, reply.packed())
        elif reply.errno:
            self._world.publisher.log("posted hypercall refused", domid=domain.domid, reason=str(reply.value))

    def _disown(self, domid: int, incarnation: int) -> None:
        """A process that no table knows goes, and what the machine says of it until it has heard us is not for us."""
        self._disowned.add((domid, incarnation))
        self._world.disown(domid, incarnation)

    def _mark_ready(self, domid: DomId | None) -> None:
        if domid not in self._ready:
            self._ready.append(domid)

    def _serve(self, domid: DomId | None) -> None:
        """One caller's turn; whoever has more to say goes to the end of the line."""
        store, caller = self._state.hypervisor.store, DOM0 if domid is None else domid
        over_ns = time.monotonic_ns() + TURN_NS
        for number in range(CALLS_PER_TURN):
            if number and time.monotonic_ns() >= over_ns:
                break
            if store.has_unsettled and store.is_settling(caller):
                break  # what it has called last is not quite done
            server = self._world.endpoints.server(domid)
            received = self._withheld.take(domid, server) or (server.receive() if server is not None else None)
            if server is None or received is None:
                return
            if store.has_unsettled and may_ask_the_store(received[1]) and store.has_to_wait(caller):
                self._withheld.keep(domid, server, received)  # or it would have all that is under way counted at once
                break
            if domid is not None:
                self._world.cpus.worked_for(domid)
                self._world.upcalls.hear_first(self._state.hypervisor.domains.get(domid))
                self._world.upcalls.heard_by_endpoint(domid)
            fault = None if domid is None else self._world.faults.of_messages.get(domid)
            if domid is None or fault is None:
                self._answer_to(server, domid, *received)
            else:
                self._answer_all(server, domid, fault, fault.arrived(received, time.monotonic_ns()))
        self._mark_ready(domid)

    def _answer_to(self, server: HypercallServer, domid: DomId | None, client: bytes, body: bytes) -> None:
        reply = self._answer(domid, client, body)
        if reply is not None:
            server.reply(client, reply.packed())

    def _answer_all(self, server: HypercallServer, domid: DomId, fault: MessageFault, requests: list[Request]) -> None:
        """What a fault has made of one request, or has held back until now."""
        for client, body in requests:
            reply = self._answer(domid, client, body)
            if reply is None:
                continue
            fault.answered(reply.sequence, reply.errno)
            if not fault.loses_reply():
                server.reply(client, reply.packed())
        if fault.kind is FaultKind.KILL_IN_TRANSACTION:
            self._kill_in_transaction(domid, fault)

    def _kill_in_transaction(self, domid: DomId, fault: MessageFault) -> None:
        domain = self._state.hypervisor.domains[domid]
        fault.counts["transactions open"] = self._state.hypervisor.store.usage(domid).transactions
        if fault.counts["transactions open"]:
            self._world.signal_domain(domain, SIGKILL)
            self._world.settle()

    def _serve_late(self) -> None:
        """Hypercalls that a fault has held back, and whose time it is."""
        now = time.monotonic_ns()
        for domid, fault in list(self._world.faults.of_messages.items()):
            server = self._world.endpoints.server(domid)
            if server is not None and (late := fault.take_due(now)):
                self._world.cpus.worked_for(domid)
                self._answer_all(server, domid, fault, late)

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
        journaled = is_journaled(message)
        if no := refusal(self._state, self._ledger, session, caller, message, size=len(body), journaled=journaled):
            return Reply(sequence, no.errno, no.text)
        now = time.monotonic_ns()
        self._ledger.open_intent(session, sequence)
        reply = self._state.call(session, caller, sequence, message, now)
        if journaled:
            self._ledger.record(self._state, [CALL, now, session, caller, body], now)
        self._ledger.close_intent()
        self._world.settle()
        self._write_audit()
        return reply
