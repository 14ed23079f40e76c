"""Makes the world agree with the tables that a new broker has rebuilt: what its predecessor had not got round to.

First what everybody depends on: descriptors, spares, which any death may call upon, deaths, processes that nobody
expects. Then domain by domain: process, endpoint, birth, descriptors, events, bells. Hypercalls are served between
these, so that two hundred domains keep nobody waiting whose own turn has come.

What the host refuses for one domain (no room in the run directory for its socket, no memory) keeps nobody else. It
lives on, moves its data and asks nothing, and is tried again later; a spare is given up, and another begun when it may
be.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hvd.broker import spares
from hvd.broker.domain import ALIVE, Domain, Life
from hvd.broker.held import (
    channel_key,
    connection_key,
    domain_key,
    extent_key,
    medium_key,
    spare_key,
    spare_store_key,
    store_key,
    trace_key,
)
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.journal import Intent
from hvd.broker.ledger import JOURNAL
from hvd.broker.lives import SIGCONT, SIGKILL, SIGSTOP
from hvd.broker.retries import Retry
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
AGAIN_LEAST_NS, AGAIN_MOST_NS = 100_000_000, 3_200_000_000
"""Between two tries of a domain for which the host has refused something."""


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
        self._alive = {(DomId(domid), Incarnation(number)): pid for domid, number, pid in inheritance.alive}
        self._left: deque[tuple[DomId, Incarnation]] = deque()
        self._refused: dict[tuple[DomId, Incarnation], Retry] = {}
        """Of whom the host would not have us take over."""

    @property
    def next_ns(self) -> int:
        """When `go_on` has something to do, in host time; in the past: now."""
        return 0 if self._left else min((retry.at_ns for retry in self._refused.values()), default=0)

    @property
    def is_due(self) -> bool:
        """Whether that is now."""
        return self.next_ns <= time.monotonic_ns()

    def begin(self, intent: Intent | None) -> None:
        """All but the domains that live. `intent` is what the dead broker had left open."""
        hypervisor, world = self._hypervisor, self._world
        expected = [process for process in self._alive if hypervisor.is_expected(*process)]
        connections = {connection_key(world.endpoints.name(*process)) for process in expected}
        world.held.drop_unknown(_known_keys(hypervisor) | connections)
        world.stop_requested = hypervisor.stopping
        world.listen_for_host()
        self._command([STORE_LOST, time.monotonic_ns()])
        for queue in hypervisor.upcalls.values():
            queue.send_again()
        if hypervisor.tracing.phase is not Phase.OFF:
            with suppress(OSError):  # no memory for it: what the broker does goes untraced
                world.start_trace()
            world.refusals.clear()
        for fault in hypervisor.faults.active.values():
            world.faults.resume(hypervisor.domains[fault.domid], fault)
        self._judge_processes()
        self._judge_intent(intent)
        how = self._inheritance.predecessor_end
        self._command([RECOVERED, time.monotonic_ns(), self._inheritance.brokers_before, how])

    def _judge_processes(self) -> None:
        """Who may not be is ended, who died meanwhile is told of, who lives is left to be taken over, dom0 first."""
        for domid, incarnation in self._alive:
            if not self._hypervisor.is_expected(domid, incarnation):
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
        try:
            if process not in self._alive:
                self._world.fork_spare(domain)
            self._world.start_spare(domain)
        except OSError as error:
            self._give_up_spare(process, f"it could not be taken over: the host refused: {_why(error)}")
            return
        if self._alive.get(process) and domain.spare.pid is None:
            self._command([STARTED, time.monotonic_ns(), *process, self._alive[process]])

    def _give_up_spare(self, process: tuple[DomId, Incarnation], why: str) -> None:
        """As if it had died: another is begun a while later, and none when that has been so too often."""
        self._world.refusals.clear()  # they are no part of what is carried out now, where a replay would meet them
        self._disown(*process)
        self._command([DIED, time.monotonic_ns(), *process, why, ""])

    def _judge_intent(self, intent: Intent | None) -> None:
        """A hypercall that broker after broker is found dead over is refused, and its sender taken down."""
        if intent is None:
            return
        crashed = not self._inheritance.predecessor_end.startswith(KILLED_FROM_OUTSIDE)
        self._command([FOUND_OPEN, time.monotonic_ns(), intent.session, intent.sequence, crashed])

    def go_on(self) -> Recovery | None:
        """Take over a few more; whoever has died or been ended since does not need it any more. None: that was all."""
        now_ns = time.monotonic_ns()
        self._left += [each for each, retry in self._refused.items() if retry.is_due(now_ns) and each not in self._left]
        for _ in range(min(DOMAINS_PER_TURN, len(self._left))):
            domid, incarnation = process = self._left.popleft()
            domain = self._hypervisor.domains.get(domid)
            if domain is not None and domain.incarnation == incarnation and domain.life in ALIVE:
                self._try_to_take_over(domain)
            else:
                self._refused.pop(process, None)
                self._world.connections.end(self._world.endpoints.name(domid, incarnation))
        self._world.settle()
        return self if self._left or self._refused else None

    def _try_to_take_over(self, domain: Domain) -> None:
        """Whom the host refuses something for waits for its turn, and everybody else goes on."""
        process = domain.domid, domain.incarnation
        try:
            self._take_over(domain, self._alive.get(process))
        except OSError as error:
            self._put_off(domain, error)
        else:
            if self._refused.pop(process, None) is not None:
                self._world.publisher.log("taken over at last", domid=domain.domid)

    def _put_off(self, domain: Domain, error: OSError) -> None:
        self._world.refusals.clear()  # as with spares
        retry = self._refused.setdefault((domain.domid, domain.incarnation), Retry(AGAIN_LEAST_NS, AGAIN_MOST_NS))
        wait_s = retry.refused(time.monotonic_ns()) / 1e9
        self._world.publisher.log(
            f"domain {domain.name} cannot be taken over: the host refuses: {_why(error)}. It runs on and gets no "
            f"answer to what it asks: make room in {self._inheritance.run_dir}, or free memory or descriptors; it is "
            f"tried again in {wait_s:g} s",
            domid=domain.domid,
        )

    def _take_over(self, domain: Domain, pid: int | None) -> None:
        """A domain of the dead broker's: its process runs, or is on its way (0), or has not been asked for (None)."""
        world = self._world
        if pid is None:
            world.fork_domain(domain)
            self._alive[domain.domid, domain.incarnation] = 0
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
            world.deny_again(domain, self._hypervisor.faults.of(domain.domid))
        asks, seen, received = world.bells.untrusted_calls(domain)
        if asks:  # it hears by its end that nobody will answer there
            world.connections.end(world.endpoints.name(domain.domid, domain.incarnation))
        if domain.ready:
            self._go_on_with(domain, seen, received)
        else:
            self._say_again(domain)

    def _go_on_with(self, domain: Domain, seen: int, received: int) -> None:
        """Say again what it waits for, or has not heard. Whoever waits for nothing and has heard all is not woken.

        What answers a call that it has given up is sent too: it would count for ever as on its way.
        """
        world, queue = self._world, self._hypervisor.upcalls[domain.domid]
        self._answer_again(domain, received)
        queue.acknowledge(seen, 0)
        if queue.unsent:
            world.events_pending(domain.domid)
        world.heart.begin(domain, time.monotonic_ns())
        world.bells.ring_what_is_untaken(domain)

    def _answer_again(self, domain: Domain, received: int) -> None:
        """The descriptors of its last hypercall, unless it has them; the reply is asked for again, or not wanted."""
        last = self._state.sessions.reply(domain_session(domain.domid, domain.incarnation))
        if last is not None and last.descriptors and received < last.sequence:
            self._world.send_descriptors(domain.domid, last.sequence, last.descriptors)
            self._world.events_pending(domain.domid)

    def _say_again(self, domain: Domain) -> None:
        """All that the dead broker may not have said to one that comes to life: whoever hears it twice knows."""
        world, last = self._world, self._state.sessions.reply(domain_session(domain.domid, domain.incarnation))
        if last is None:
            world.deliver_birth(domain)
        if domain.released:  # it may have reported its sandbox and still not have been told
            world.let_run(domain)
        self._answer_again(domain, 0)
        world.events_pending(domain.domid)
        for binding in self._hypervisor.channels.ports[domain.domid].values():
            world.raise_end(binding.channel, binding.side)


def _why(error: OSError) -> str:
    """Without the path or the address that some say it with, which lead nobody anywhere from outside."""
    return os.strerror(error.errno) if error.errno else str(error)


def _known_keys(hypervisor: Hypervisor) -> set[str]:
    keys = {JOURNAL, store_key(HOST), *map(uplink_key, hypervisor.networks.uplinks())}
    keys |= {channel_key(b.channel) for ports in hypervisor.channels.ports.values() for b in ports.values()}
    keys |= {extent_key(extent) for extent in hypervisor.grants.extents()}
    keys |= {medium_key(number) for number in hypervisor.media.opened.values()}
    for domain in hypervisor.domains.values():
        keys |= {domain_key(domain.domid), store_key(domain.domid)} if domain.life in ALIVE else set()
        if domain.spare is not None:
            channels, extents = spares.keys(domain)
            keys |= {spare_key(domain.domid), spare_store_key(domain.domid)}
            keys |= {*map(channel_key, channels), *map(extent_key, extents)}
    if hypervisor.tracing.phase is not Phase.OFF:
        keys |= {trace_key(*whose) for whose in (HYPERVISOR, *hypervisor.tracing.kept)}
    return keys
