"""The steps of a domain's life: enrolled, built, run, ended, started again or forgotten.

No I/O, no clock, no random source: time and secrets come in as arguments, and the world outside is reached through
`Hardware` only.
"""

from __future__ import annotations

import errno
import re

from hvd.broker import core_dumps, devices, fault_steps, hotplug, live_dumps, sandboxes, services, spares
from hvd.broker.birth_ports import bind_birth
from hvd.broker.domain import ACTING, ALIVE, NEVER_STARTED, Clock, Domain, Event, Life
from hvd.broker.errors import Refused
from hvd.broker.estates import estate_of
from hvd.broker.restarts import Action
from hvd.broker.store import StoreError
from hvd.broker.tables import Tables
from hvd.transport.ids import DOM0, DOMID_FIRST_RESERVED, DomId, Incarnation, Port
from hvd.transport.limits import DEVICES_MAX, DOMAINS_MAX, HEARTBEAT_MS_LEAST
from hvd.transport.messages import DeviceConfig, DomainConfig

SIGTERM, SIGKILL, SIGCONT, SIGSTOP = 15, 9, 18, 19
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", re.ASCII)


class Lives(Tables):
    """The tables, and what becomes of domains by the rules alone."""

    def _enrol(self, config: DomainConfig, now_ns: int) -> Domain:
        """The checks, and a record that waits."""
        self.check_name(config.name)
        self.check_config(config)
        if len(self.domains) >= DOMAINS_MAX:
            raise Refused(errno.ENOSPC, f"{len(self.domains)} domains exist; {DOMAINS_MAX} is the most")
        if self.next_domid >= DOMID_FIRST_RESERVED:
            text = f"all {DOMID_FIRST_RESERVED} domids have been used, and none is used twice: reboot the machine"
            raise Refused(errno.ENOSPC, text)
        self.xsm.admit(DomId(self.next_domid), config)
        domain = Domain(DomId(self.next_domid), config, config.name, created_ns=now_ns)
        self.next_domid += 1
        self.domains[domain.domid] = domain
        self.announce("created", domain, "")
        return domain

    def check_name(self, name: str) -> None:
        """EINVAL when it is no name, EEXIST when a domain or a group has it."""
        if not NAME.fullmatch(name):
            raise Refused(errno.EINVAL, f"{name!r} is no name for a domain: 1 to 64 letters, digits and _.+-")
        if name.isdecimal():
            raise Refused(errno.EINVAL, f"{name!r} is no name for a domain: a number is a domid, add a letter or _.+-")
        if self.by_name(name) is not None:
            raise Refused(errno.EEXIST, f"a domain named {name!r} exists already")
        self.networks.check_name(name)
        if self.groups.has(name):
            raise Refused(errno.EEXIST, f"{name!r} is a group's name, and members are known by name")

    def check_config(self, config: DomainConfig) -> None:
        """EINVAL saying what no domain can be made of."""
        for other in (*config.after, *(device.backend for device in config.devices)):
            if self.by_name(other) is None:
                raise Refused(errno.EINVAL, f"domain {config.name!r} names {other!r}, which does not exist")
        if len(config.devices) > DEVICES_MAX:
            text = f"domain {config.name!r} has {len(config.devices)} devices; {DEVICES_MAX} is the most"
            raise Refused(errno.EINVAL, text)
        if config.service and not NAME.fullmatch(config.service):
            text = f"service = {config.service!r} is no name: 1 to 64 letters, digits and _.+-"
            raise Refused(errno.EINVAL, text)
        for number, device in enumerate(config.devices):
            self.networks.check(config.name, device, config.devices[:number], self.domains.values())
        sandboxes.check(config)
        for key in ("on_poweroff", "on_reboot", "on_crash", "on_watchdog"):
            if getattr(config, key) not in set(Action):
                raise Refused(errno.EINVAL, f"{key} = {getattr(config, key)!r}; expected one of {', '.join(Action)}")
        if 0 < config.heartbeat_ms < HEARTBEAT_MS_LEAST:
            text = f"heartbeat_ms = {config.heartbeat_ms}; expected 0, for none, or at least {HEARTBEAT_MS_LEAST}"
            raise Refused(errno.EINVAL, text)

    def _start_waiting(self, now_ns: int) -> None:
        for domain in list(self.domains.values()):
            if domain.retry_at_ns is not None:
                continue
            if domain.life is Life.WAITING and not self.waits_for(domain):
                self._start(domain, now_ns)

    def waits_for(self, domain: Domain) -> list[str]:
        """Whom it comes after and who is not ready, by name; there may be no such domain any more, or not yet again.

        And who is stopped with it for its group's restart and is not gone yet.
        """
        if domain.life is not Life.WAITING:
            return []
        unready = {name for name in self._prerequisites(domain) if not self._is_ready(name)}
        return sorted(unready | self._stopped_with(domain))

    def _stopped_with(self, domain: Domain) -> set[str]:
        if self.groups.of(domain.name) is None:
            return set()
        to_go = {d.name for d in self.domains.values() if d.regroup_at_ns is not None and d.life in ALIVE}
        return to_go and to_go.intersection(self.groups.family(domain.name))  # a family is long, and rarely asked for

    def _prerequisites(self, domain: Domain) -> set[str]:
        implied = set() if domain.domid == DOM0 else {self.domains[DOM0].name}
        return implied | set(domain.config.after) | {device.backend for device in domain.config.devices}

    def _is_ready(self, name: str) -> bool:
        other = self.by_name(name)
        return other is not None and other.serves

    def _boot_again(self, domain: Domain, now_ns: int) -> None:
        domain.restarted_at_ns.clear()
        self.groups.forgive(domain.name)
        domain.retry_at_ns = None
        self._start(domain, now_ns)

    def _start(self, domain: Domain, now_ns: int) -> None:
        """A new incarnation, or none: one that cannot be built fails its domain and nothing else."""
        takes_over = spares.takes_over(domain)
        if not takes_over:
            spares.dismiss(self, domain)
            domain.incarnations, domain.estate = Incarnation(domain.incarnations + 1), ()
        domain.move(Event.START)
        domain.restarts += domain.incarnation != NEVER_STARTED
        domain.incarnation = domain.spare.incarnation if domain.spare is not None else domain.incarnations
        domain.spare_deaths, domain.spare_trouble, domain.console_waits = 0, "", False
        domain.pid, domain.ready, domain.ready_unseen, domain.released = None, False, False, False
        domain.shutdown, domain.shutdown_text = None, ""
        domain.fault = domain.kill_at_ns = domain.timer_ns = domain.sandbox_lacking = None
        domain.watchdogs, domain.refused, domain.store_port = {}, "", None
        domain.given_up, domain.regroup_at_ns = "", None
        self.deadlines.note(domain)
        domain.clock = Clock(started_ns=now_ns)
        domain.build_memory()
        try:
            if takes_over:
                spares.promote(self, domain, now_ns)
            else:
                self._build(domain)
        except OSError as error:
            self._abandon(domain, f"cannot be started: the host refused: {error.strerror}")
        except (StoreError, Refused) as error:
            self._abandon(domain, f"cannot be started: {error}")
        else:
            self.announce("starting", domain, "its spare takes over" if takes_over else "")

    def _build(self, domain: Domain) -> None:
        """The process; then what it readies itself with: ports, console, endpoint; then what it asks of the store."""
        dom = domain.domid
        if dom not in self.channels.ports:
            self.channels.add_domain(dom)
            self.grants.add_domain(dom)
        self.hardware.create_domain(dom)
        self.hardware.fork_domain(domain)
        console_port = bind_birth(self, domain, None)
        self.hardware.start_domain(domain)
        self.hardware.deliver_birth(domain)
        self.hardware.open_endpoint(domain)  # while the process puts on its sandbox
        self._write_store(domain, console_port)
        if not (domain.config.paused and domain.incarnation == 1):
            self.let_run(domain)

    def ask_ahead(self, domain: Domain) -> None:
        """Carry out what the spare that takes over would ask first; for whoever knows the hypercalls."""

    def let_run(self, domain: Domain) -> None:
        if not domain.released:
            domain.released = True
            self.hardware.let_run(domain)

    def _abandon(self, domain: Domain, text: str) -> None:
        """What was built of an incarnation goes again. There was no process, so there is nothing to wait for."""
        domain.move(Event.DEATH)
        self._withdraw(domain)
        self._fail(domain, text)
        self.collect_store_events()

    def _fail(self, domain: Domain, text: str) -> None:
        spares.dismiss(self, domain)
        domain.move(Event.GIVE_UP)
        domain.last_death = text
        self.announce("failed", domain, text)
        if domain.domid == DOM0:
            self.stop_machine(reboot=False)

    def _write_store(self, domain: Domain, console_port: Port) -> None:
        if self.store.is_introduced(domain.domid):
            self.store.tell_started_again()
        else:
            self.store.introduce(domain.domid)
        devices.write_domain(self.store, domain)
        devices.write_console(self.store, domain, console_port)
        for device, backend in self.own_devices(domain):
            self.write_device(domain, device, backend)
        self.collect_store_events()

    def write_device(self, domain: Domain, device: DeviceConfig, backend: DomId) -> None:
        """Its directories, where driver domain and domain find it: a vif's say what its network has for it."""
        devices.write_device(self.store, domain, self.networks.joined(device), backend)

    def _end(self, domain: Domain) -> None:
        """Kill it, after its core is written if one is wanted; nothing more if that is under way."""
        if core_dumps.must_be_taken(domain):
            domain.move(Event.DUMP)
            domain.kill_at_ns = None
            self.announce("dumping core", domain, "")
            if domain.pid is not None:
                self.hardware.dump_domain(domain)
        elif domain.life is not Life.DUMPING:
            self._kill(domain)

    def _kill(self, domain: Domain) -> None:
        domain.move(Event.KILL)
        domain.kill_at_ns = None
        if domain.pid is not None:
            self.hardware.signal_domain(domain, SIGKILL)

    def _withdraw(self, domain: Domain) -> None:
        """Take back what the dead incarnation held; the other ends of it are woken."""
        dom = domain.domid
        domain.estate, domain.ahead = estate_of(self, domain) if spares.is_succeeded(domain) else (), ()
        for fault in self.faults.of(dom):
            fault_steps.end(self, fault, dead=True)
        self.grants.domain_died(dom)
        self.channels.close_all(dom)
        self.media.domain_died(dom)
        if self.store.is_introduced(dom):
            self.store.close_domain(dom)
            self.store.tell_stopped()
        self.upcalls.pop(dom, None)
        self.tracing.keep(domain, self.hardware)
        self.hardware.release_domain(dom)
        domain.pid = domain.kill_at_ns = domain.runs_at_ns = None
        hotplug.domain_died(self, domain)
        live_dumps.domain_died(self, domain)
        clients = self.client_devices(domain)
        devices.drop_states(self.store, domain, self.own_devices(domain), clients)
        for client in {client.domid: client for client, _ in clients}.values():
            if client.life in ACTING:
                self.hardware.hurry(client)
        if dom == DOM0:
            devices.drop_terminals(self.store, self.domains)

    def _remove(self, domain: Domain) -> None:
        dom = domain.domid
        spares.dismiss(self, domain)
        devices.remove_domain(self.store, domain, self.own_devices(domain))
        if self.store.is_introduced(dom):
            self.store.release(dom)
        self.store.forget_domain(dom)
        self.media.domain_removed(dom)
        if dom in self.channels.ports:
            self.channels.remove_domain(dom)
            self.grants.remove_domain(dom)
        del self.domains[dom]
        self.deadlines.forget(dom)
        services.removed(self)
        self.collect_store_events()
        self.xsm.forget(dom)
        self.denials.pop(dom, None)
        self.announce("destroyed", domain, domain.last_death)

    def stop_machine(self, *, reboot: bool) -> None:
        """Power off, or reboot: the machine kills everything."""
        self.stopping = reboot
        self.hardware.stop_machine(reboot=reboot)

    @property
    def has_store_news(self) -> bool:
        """Whether what was last asked of the store concerns somebody else."""
        return self.store.has_events or bool(self.leaving)

    def collect_store_events(self) -> None:
        """Queue what the store's changes have fired, and ring those it concerns."""
        if not self.has_store_news:
            return
        rung = set()
        for event in self.store.take_events():
            if event.connection:
                self.hardware.store_event(event)
            elif (queue := self.upcalls.get(event.domid)) is not None:
                queue.add(event.path, event.token)
                rung.add(event.domid)
        for dom in rung:
            self.hardware.events_pending(dom)
        hotplug.look(self)
