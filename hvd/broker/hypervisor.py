"""What changes the hypervisor's tables (lives.py): calls of domains and dom0, news of the machine, time.

Everything here can be pickled (a snapshot) and rebuilt by applying the journal's commands again in order, because time
and secrets come in as arguments and the world outside is reached through `Hardware` only.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from hvd.broker import ahead, core_dumps, fault_steps, sandboxes, services, spares
from hvd.broker.aftermath import Aftermath
from hvd.broker.deadlines import Due
from hvd.broker.domain import ACTING, ALIVE, NEXT, Domain, Event, Life, Shutdown
from hvd.broker.errors import Refused
from hvd.broker.event_channels import VIRQ_DOM_EXC, VIRQ_TIMER
from hvd.broker.lives import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from hvd.broker.store import StoreError
from hvd.broker.store.watches import RING
from hvd.broker.tracing import Phase
from hvd.transport.end_moments import REAPED_EVENT, EndMoments
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import DOM0, GRANT_REF_XENSTORE, DomId, Incarnation, Port
from hvd.transport.limits import FAULT_S_MAX
from hvd.transport.messages import GRACE_OVER, DomainConfig, FaultBegin


class Hypervisor(Aftermath):
    """What domains, dom0 and the machine ask of it and report."""

    # ---- domctl ------------------------------------------------------------------------------------------------------

    def create(self, config: DomainConfig, now_ns: int) -> Domain:
        """A new domain; it starts as soon as what it comes after is ready. EEXIST, EINVAL or ENOSPC change nothing."""
        domain = self._enrol(config, now_ns)
        self._start_waiting(now_ns)
        return domain

    def destroy(self, domid: DomId, now_ns: int) -> None:
        """Kill and forget. A domid is never used again."""
        domain = self.domain(domid)
        if domain.domid == DOM0:
            raise Refused(errno.EPERM, "Domain-0 cannot be destroyed; `hvd down` powers the machine off")
        domain.destroying = True
        if domain.life in ALIVE:
            self._kill(domain)
        else:
            self._remove(domain)

    def pause(self, domid: DomId, now_ns: int) -> None:
        domain = self.domain(domid)
        if domain.core_to and domain.runs_after_core:
            domain.runs_after_core = False
            return
        domain.move(Event.PAUSE)
        domain.clock.pause(now_ns)
        if domain.released:  # else it waits by itself
            self.hardware.signal_domain(domain, SIGSTOP)
        self.announce("paused", domain, "")

    def unpause(self, domid: DomId, now_ns: int) -> None:
        """While a core of it is written: when that is over."""
        domain = self.domain(domid)
        if domain.core_to and domain.life is Life.PAUSED:
            domain.runs_after_core = True
            return
        domain.move(Event.UNPAUSE)
        domain.clock.unpause(now_ns)
        self.hardware.update_shared_info(domain)
        self.let_run(domain)
        if not self.faults.stops(domid):
            self.hardware.signal_domain(domain, SIGCONT)
        self.announce("unpaused", domain, "")

    def request_shutdown(self, domid: DomId, *, reboot: bool, grace_ms: int, now_ns: int) -> None:
        """Ask through control/shutdown; after the grace the domain is killed and counts as having done so itself."""
        domain = self.domain(domid)
        if domain.life not in ALIVE:
            if not reboot or domain.life is Life.WAITING:
                state, verb = domain.life.name.lower(), "reboot" if reboot else "shut down"
                raise Refused(errno.EINVAL, f"domain {domain.name} is {state}: nothing to {verb}")
            self._boot_again(domain, now_ns)
            return
        if domain.life is Life.PAUSED:
            self.unpause(domid, now_ns)
        domain.shutdown = Shutdown.REBOOT if reboot else Shutdown.POWEROFF
        domain.kill_at_ns = now_ns + grace_ms * 1_000_000
        self.deadlines.note(domain)
        self.store.write(DOM0, 0, f"/local/domain/{domid}/control/shutdown", b"reboot" if reboot else b"poweroff")
        self.collect_store_events()
        self.hardware.signal_domain(domain, SIGTERM)
        self.announce("shutting down", domain, domain.shutdown.name.lower())

    def kill(self, domid: DomId, signal: int) -> None:
        """Send a signal as a fault from outside; what follows is what follows any such death."""
        domain = self.domain(domid)
        if domain.life not in ALIVE or domain.pid is None:
            state = domain.life.name.lower()
            raise Refused(errno.ESRCH, f"domain {domain.name} is {state}: it has no process to signal")
        if domain.life is Life.PAUSED and signal == SIGCONT:
            raise Refused(errno.EINVAL, f"domain {domain.name} is paused: unpause it; SIGCONT starts no clock")
        self.announce("signalled", domain, str(signal))
        self.hardware.signal_domain(domain, signal)

    def begin_fault(self, message: FaultBegin, now_ns: int) -> int:
        """Do a fault, or begin one; its number. Refused or OSError: nothing was done."""
        return fault_steps.begin(self, message, now_ns)

    def end_fault(self, domid: DomId, number: int) -> None:
        """Undo one before its time. Nothing when it is over; EINVAL when it is another domain's."""
        fault = self.faults.active.get(number)
        if fault is not None:
            if fault.domid != domid:
                raise Refused(errno.EINVAL, f"fault {number} is domain {fault.domid}'s, not domain {domid}'s")
            fault_steps.end(self, fault)

    def strike(self, role: str, signal: int, for_ms: int) -> None:
        """A signal for the broker itself, or the zygote: the machine sends it, when the broker has answered."""
        if role not in ("broker", "zygote"):
            raise Refused(errno.EINVAL, f"role {role!r}; expected broker or zygote")
        if for_ms > FAULT_S_MAX * 1000:
            raise Refused(errno.EINVAL, f"a fault of {for_ms} ms; {FAULT_S_MAX} s is the most")
        self.announce("fault injected", None, f"{role}: signal {signal}")
        self.hardware.strike(role, signal, for_ms)

    def domain_shutdown(self, domid: DomId, reason: int, text: str) -> None:
        """sched_op shutdown by the domain itself: it will not run again in this incarnation."""
        domain = self.domain(domid)
        if domain.life not in ALIVE:
            raise Refused(errno.ESRCH, f"domain {domain.name} is {domain.life.name.lower()}: it does not run")
        shutdown = Shutdown.of(reason)
        if domain.shutdown is None or shutdown in (Shutdown.CRASH, Shutdown.WATCHDOG):
            domain.shutdown = shutdown
        domain.shutdown_text = text
        self._end(domain)

    def crash(self, domid: DomId, text: str) -> None:
        """Take a domain down for something that it did."""
        domain = self.domain(domid)
        if domain.life in ALIVE:
            domain.shutdown, domain.shutdown_text = Shutdown.CRASH, text
            self._end(domain)

    def reset(self, domid: DomId) -> None:
        """Take a domain down as its reset line does: it was not asked, and on_reboot follows."""
        domain = self.domain(domid)
        if domain.life in ALIVE:
            domain.shutdown, domain.shutdown_text = Shutdown.REBOOT, "reset"
            self._end(domain)

    def faulted(self, domid: DomId, incarnation: Incarnation, notice: FaultNotice | None) -> None:
        """A domain says that a fatal signal has met it, and waits to be killed. None: it said something else."""
        domain = self.domains.get(domid)
        if domain is None or domain.incarnation != incarnation or domain.life not in ACTING:
            return
        domain.fault = notice
        if notice is None:
            self.crash(domid, "what it wrote to its upcall socket is no fault notice")
        else:
            self._end(domain)

    def audited(self, domid: DomId, line: str, denials: int) -> None:
        """The policy has denied a domain something, so often since the last line."""
        self.console.append(f"(XEN) {line}")
        domain = self.domains.get(domid)
        if domain is not None:
            self.denials[domid] = self.denials.get(domid, 0) + denials
        self.announce("denied", domain, line)

    def hung(self, domid: DomId, incarnation: Incarnation, why: str) -> None:
        """Its heartbeat has stopped, and not because it is kept from running."""
        domain = self.domains.get(domid)
        if domain is None or domain.incarnation != incarnation or domain.life is not Life.RUNNING:
            return
        domain.shutdown, domain.shutdown_text = Shutdown.WATCHDOG, why
        self.announce("hangs", domain, why)
        self._end(domain)

    def take_sandbox_report(self, domid: DomId, untrusted_lacking: dict[str, str]) -> None:
        """A new incarnation says how its sandbox has turned out; without what is required of it, it does not run."""
        domain = self.domain(domid)
        self.console.append(sandboxes.take_report(domain, untrusted_lacking))
        if domain.memory.bound != domain.memory.born:
            self.hardware.bound_memory(domain, domain.memory.bound)
        if domain.refused:
            self.crash(domid, domain.refused)

    def domain_ready(self, domid: DomId, now_ns: int) -> None:
        """A domain is doing what it is for: those that come after it may start.

        One whose process the machine has not reported yet, because the broker that was to hear it died, is ready then.
        """
        domain = self.domain(domid)
        domain.ready_unseen = domain.pid is None
        if not domain.ready and not domain.ready_unseen:
            domain.ready, domain.ahead = True, ()
            self.hardware.watch_end(domain)
            self.announce("ready", domain, "")
            services.stands(self, domain)
            self.collect_store_events()
            spares.schedule(self, domain, now_ns)
            self._start_waiting(now_ns)

    def ask_ahead(self, domain: Domain) -> None:
        if domain.config.driver_domain:
            ahead.carry_out(self, domain, self.events.now_ns)

    # ---- XenStore's own calls ----------------------------------------------------------------------------------------

    def introduce(self, domid: DomId) -> None:
        """INTRODUCE: the domain speaks to the store; for one that does, its ring begins anew. ENOENT: no such one."""
        if domid not in self.domains:
            raise StoreError(errno.ENOENT, f"no domain with domid {domid}")
        if self.store.is_introduced(domid):
            self.store.close_connection(domid, RING)
        else:
            self.store.introduce(domid)
        self.hardware.reset_store_ring(domid)

    def release(self, domid: DomId) -> None:
        """RELEASE: it does not any more, until it is introduced again. ENOENT for one that did not."""
        self.store.release(domid)
        self.hardware.disconnect_store(domid)

    def open_store_ring(self, domid: DomId) -> Port:
        """A domain's ring page (grant 1) and its channel, made at its first asking: the port. OSError, Refused."""
        domain = self.domain(domid)
        table = self.grants.tables[domid]
        if GRANT_REF_XENSTORE not in table.refs:
            page = self.grants.allocate(domid, DOM0, 1, readonly=False)
            self.grants.share(domid, page.id, 0, 1, at=GRANT_REF_XENSTORE)
        if self.store_ring_of(domain) is None:
            domain.store_port = self.channels.bind_store(domid)
            domain.store_channel = self.channels.ports[domid][domain.store_port].channel
            self.hardware.attach_store_ring(domid, table.refs[GRANT_REF_XENSTORE].id, domain.store_channel)
        assert domain.store_port is not None
        return domain.store_port

    # ---- tracing -----------------------------------------------------------------------------------------------------

    def start_trace(self, chosen: Iterable[DomId], *, only_if_free: bool = False) -> int:
        """Trace these domains, or all; the session's number. ESRCH for one that does not exist, EBUSY: one runs."""
        if only_if_free and self.tracing.phase is not Phase.OFF:
            raise Refused(errno.EBUSY, "somebody traces")
        return self.tracing.start([self.domain(domid).domid for domid in chosen], self.domains.values(), self.hardware)

    def stop_trace(self, session: int, *, keep: bool) -> None:
        """Record nothing more; without `keep`, forget what was recorded. ESTALE when that session is over."""
        self.tracing.stop(session, self.domains.values(), self.hardware)
        if not keep:
            self.end_trace()

    def end_trace(self) -> None:
        """Nobody reads the trace any more."""
        self.tracing.end(self.domains.values(), self.hardware)

    # ---- what the machine reports ------------------------------------------------------------------------------------

    def started(self, domid: DomId, incarnation: Incarnation, pid: int, now_ns: int) -> None:
        """The process of an incarnation exists."""
        domain = self.domains.get(domid)
        if domain is not None and spares.is_of(domain, incarnation):
            spares.started(domain, pid)
        if domain is None or domain.incarnation != incarnation or (domain.life, Event.STARTED) not in NEXT:
            return
        domain.pid = pid
        domain.move(Event.STARTED)
        if domain.life is Life.DYING:
            self.hardware.signal_domain(domain, SIGKILL)
        elif domain.life is Life.DUMPING:
            self.hardware.dump_domain(domain)
        elif domain.config.paused and incarnation == 1:
            self.pause(domid, now_ns)
        elif domain.kill_at_ns is not None:  # asked to stop before there was a process to ask
            self.hardware.signal_domain(domain, SIGTERM)
        if domain.ready_unseen:
            self.domain_ready(domid, now_ns)

    def died(self, domid: DomId, incarnation: Incarnation, how: str, now_ns: int, core: str = "") -> None:
        """The kernel says that no thread of this incarnation is left: everything it held may be given away now.

        `core` is what became of its core, "" if none was asked for.
        """
        domain = self.domains.get(domid)
        if domain is not None and spares.is_of(domain, incarnation):
            spares.died(self, domain, how, now_ns)
        if domain is None or domain.incarnation != incarnation or domain.life not in ALIVE:
            return
        domain.move(Event.DEATH)
        domain.last_death = core_dumps.describe_death(domain, how, core)
        self._withdraw(domain)
        services.died(self, domain)
        if core:
            self.hardware.write_log(domain, core)
        self.announce("died", domain, domain.last_death)
        self.channels.raise_virq(DOM0, VIRQ_DOM_EXC)
        self._after_death(domain, now_ns)
        self.collect_store_events()

    def reaped(self, domid: DomId, incarnation: Incarnation, name: str, moments: EndMoments) -> None:
        """An end that is known has come to its own; `name` where it is no domain's. Nobody asks about who is gone."""
        domain = self.domains.get(domid)
        if domain is not None or name:
            whose = domid, name if domain is None else domain.name, incarnation
            self.hardware.publish(self.events.add(REAPED_EVENT, *whose, moments.told(self.events.now_ns)))

    def is_expected(self, domid: DomId, incarnation: Incarnation) -> bool:
        """Whether a process of this incarnation is one that may run."""
        domain = self.domains.get(domid)
        if domain is None:
            return False
        return spares.is_of(domain, incarnation) or (domain.incarnation == incarnation and domain.life in ALIVE)

    def spare_reports(self, domid: DomId, incarnation: Incarnation, lacking: dict[str, str], trouble: str) -> None:
        """A spare says what its sandbox lacks, and stands by; or why it cannot."""
        spares.take_report(self, domid, incarnation, lacking, trouble)

    # ---- time --------------------------------------------------------------------------------------------------------

    def next_deadline_ns(self) -> int | None:
        """The host time at which `tick` has something to do."""
        one, other = self.deadlines.next_ns(), self.faults.next_ns()
        return other if one is None else one if other is None else min(one, other)

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        for fault in self.faults.due(now_ns):
            fault_steps.turn(self, fault, now_ns)
        for at, what, domain in list(self.deadlines.all()):
            if at > now_ns:
                continue
            match what:
                case Due.RETRY:
                    domain.retry_at_ns = None
                    if domain.life is Life.WAITING:
                        self._start_waiting(now_ns)
                    else:
                        self._start(domain, now_ns)
                case Due.GRACE:
                    domain.shutdown_text = GRACE_OVER
                    self._end(domain)
                case Due.WATCHDOG:
                    domain.shutdown, domain.shutdown_text = Shutdown.WATCHDOG, "its watchdog timer ran out"
                    self._end(domain)
                case Due.TIMER:
                    domain.timer_ns = None
                    self.channels.raise_virq(domain.domid, VIRQ_TIMER)
                case Due.SPARE:
                    spares.due(self, domain, now_ns)
                case Due.RUN:
                    spares.let_run(self, domain)
            self.deadlines.note(domain)
