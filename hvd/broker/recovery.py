"""Makes the world agree with the tables that a new broker has rebuilt: what its predecessor had not got round to.

First what everybody depends on: descriptors, spares, which any death may call upon, deaths, processes that nobody
expects. Then domain by domain: process, endpoint, birth, descriptors, events, bells. Hypercalls are served between
these, so that two hundred domains keep nobody waiting whose own turn has come.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from hvd.broker import spares
from hvd.broker.domain import ALIVE, Domain, Life
from hvd.broker.held import channel_key, domain_key, extent_key, medium_key, spare_key, store_key, trace_key
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.journal import Intent
from hvd.broker.ledger import JOURNAL
from hvd.broker.lives import SIGCONT, SIGKILL, SIGSTOP
from hvd.broker.sessions import domain_session
from hvd.broker.state import DIED, FOUND_OPEN, RECOVERED, STARTED, STORE_LOST, State
from hvd.broker.tracing import Phase
from hvd.broker.world import World
from hvd.broker.xenstored.sockets import HOST
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.machine_link import Inheritance, uplink_key
from hvd.transport.trace import HYPERVISOR

KILLED_FROM_OUTSIDE = "killed by SIGKILL"
"""How a broker ends that did nothing wrong itself."""
DOMAINS_PER_TURN = 4
"""Domains taken over before whoever asks for something has a turn."""


class Recovery:
    """One new broker's. Any call of `go_on` may be the last: the next broker begins anew."""

    def __init__(
        self,
        world: World,
        state: State,
        inheritance: Inheritance,
        command: Callable[[list[Any]], None],
        disown: Callable[[int, int], None],
    ) -> None:
        self._world = world
        self._state = state
        self._hypervisor = state.hypervisor
        self._inheritance = inheritance
        self._command = command
        self._disown = disown
        self._alive = {(domid, incarnation): pid for domid, incarnation, pid in inheritance.alive}
        self._left: deque[tuple[DomId, Incarnation]] = deque()

    @property
    def complete(self) -> bool:
        """Whether every domain has been taken over."""
        return not self._left

    def begin(self, intent: Intent | None) -> None:
        """All but the domains that live. `intent` is what the dead broker had left open."""
        hypervisor, world = self._hypervisor, self._world
        world.held.drop_unknown(_known_keys(hypervisor))
        world.stop_requested = hypervisor.stopping
        world.listen_for_host()
        self._command([STORE_LOST, time.monotonic_ns()])
        for queue in hypervisor.upcalls.values():
            queue.send_again()
        if hypervisor.tracing.phase is not Phase.OFF:
            world.start_trace()
        for fault in hypervisor.faults.active.values():
            world.faults.resume(hypervisor.domains[fault.domid], fault)
        self._judge_processes()
        self._judge_intent(intent)
        how = self._inheritance.predecessor_end
        self._command([RECOVERED, time.monotonic_ns(), self._inheritance.brokers_before, how])

    def _judge_processes(self) -> None:
        """Who may not be is ended, who died meanwhile is told of, who lives is left to be taken over, dom0 first."""
        for domid, incarnation in self._alive:
            if not self._hypervisor.is_expected(DomId(domid), Incarnation(incarnation)):
                self._disown(domid, incarnation)
        for domain in self._hypervisor.domains.values():
            self._take_over_spare(domain)
        lived = [domain for domain in self._hypervisor.domains.values() if domain.life in ALIVE]
        for domain in lived:
            process = domain.domid, domain.incarnation
            if process in self._alive or process not in self._inheritance.ended:
                self._left.append(process)
            else:
                self._command([DIED, time.monotonic_ns(), *process, *self._inheritance.ended[process]])

    def _take_over_spare(self, domain: Domain) -> None:
        """Before its domain, whose death in the next turn may already call upon it."""
        if domain.spare is None:
            return
        process = domain.domid, domain.spare.incarnation
        if process in self._inheritance.ended and process not in self._alive:
            self._command([DIED, time.monotonic_ns(), *process, *self._inheritance.ended[process]])
            return
        if process not in self._alive:
            self._world.fork_spare(domain)
        self._world.start_spare(domain)
        if self._alive.get(process) and domain.spare.pid is None:
            self._command([STARTED, time.monotonic_ns(), *process, self._alive[process]])

    def _judge_intent(self, intent: Intent | None) -> None:
        """A hypercall that broker after broker is found dead over is refused, and its sender taken down."""
        if intent is None:
            return
        crashed = not self._inheritance.predecessor_end.startswith(KILLED_FROM_OUTSIDE)
        self._command([FOUND_OPEN, time.monotonic_ns(), intent.session, intent.sequence, crashed])

    def go_on(self) -> None:
        """Take over a few more; whoever has died or been ended since does not need it any more."""
        for _ in range(min(DOMAINS_PER_TURN, len(self._left))):
            domid, incarnation = self._left.popleft()
            domain = self._hypervisor.domains.get(domid)
            if domain is not None and domain.incarnation == incarnation and domain.life in ALIVE:
                self._take_over(domain, self._alive.get((domid, incarnation)))
        self._world.settle()

    def _take_over(self, domain: Domain, pid: int | None) -> None:
        """A domain of the dead broker's: its process runs, or is on its way (0), or has not been asked for (None)."""
        world = self._world
        if pid is None:
            world.fork_domain(domain)
        world.start_domain(domain)
        world.open_endpoint(domain)
        world.upcalls.expect(domain)
        if (ring := self._hypervisor.store_ring_of(domain)) is not None:
            world.store_rings.attach(domain.domid, *ring, new=False)
        if domain.sandbox_lacking is not None:
            world.bound_memory(domain, domain.memory.bound)
        if pid and domain.pid is None:
            self._command([STARTED, time.monotonic_ns(), domain.domid, domain.incarnation, pid])
        if domain.core_to:
            world.dump_live_domain(domain)
        if domain.life is Life.DUMPING:
            world.dump_domain(domain)
        else:
            halt = SIGSTOP if domain.released else SIGCONT
            runs = SIGSTOP if self._hypervisor.faults.stops(domain.domid) else SIGCONT
            world.signal_domain(domain, {Life.PAUSED: halt, Life.DYING: SIGKILL}.get(domain.life, runs))
        self._say_again(domain)
        for binding in self._hypervisor.channels.ports[domain.domid].values():
            world.raise_end(binding.channel, binding.side)

    def _say_again(self, domain: Domain) -> None:
        """What the dead broker may not have said: whoever hears it twice knows."""
        world, last = self._world, self._state.sessions.reply(domain_session(domain.domid, domain.incarnation))
        if last is None:
            world.deliver_birth(domain)
        if domain.released:  # it may have reported its sandbox and still not have been told
            world.let_run(domain)
        if last is not None and last.descriptors:
            world.send_descriptors(domain.domid, last.sequence, last.descriptors)
        world.events_pending(domain.domid)


def _known_keys(hypervisor: Hypervisor) -> set[str]:
    keys = {JOURNAL, store_key(HOST), *map(uplink_key, hypervisor.networks.uplinks())}
    keys |= {channel_key(b.channel) for ports in hypervisor.channels.ports.values() for b in ports.values()}
    keys |= {extent_key(extent) for extent in hypervisor.grants.extents()}
    keys |= {medium_key(number) for number in hypervisor.media.opened.values()}
    for domain in hypervisor.domains.values():
        keys |= {domain_key(domain.domid), store_key(domain.domid)} if domain.life in ALIVE else set()
        if domain.spare is not None:
            channels, extents = spares.keys(domain)
            keys |= {spare_key(domain.domid), *map(channel_key, channels), *map(extent_key, extents)}
    if hypervisor.tracing.phase is not Phase.OFF:
        keys |= {trace_key(*whose) for whose in (HYPERVISOR, *hypervisor.tracing.kept)}
    return keys
