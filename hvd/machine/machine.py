"""The machine: forks broker, zygote and domains, reaps them, and keeps descriptors. It decides nothing.

It is the one process that must not die: its end is a power cut, and everything under it ends with it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from hvd.machine.broker_line import OUTBOX_MAX, BrokerLine
from hvd.machine.children import Child, Children
from hvd.machine.dumps import ENDED_BEFORE, Dumps
from hvd.machine.ends import DEATHS_MAX, Ends, Vitality
from hvd.machine.exits import Exits
from hvd.machine.held import Held
from hvd.machine.orders import ORDERS, DomainOrders
from hvd.machine.processes import fork_process
from hvd.machine.reach import Reach
from hvd.machine.spawns import PATIENCE_S, Spawn, Spawns
from hvd.machine.strikes import Strikes
from hvd.machine.watch import Watches
from hvd.transport.cgroups import DomainGroups, MachineGroups, lift_disks
from hvd.transport.descriptors import receive_message, send_message, socket_pair
from hvd.transport.errors import PeerFault
from hvd.transport.machine_link import (
    DIED,
    DISOWN,
    DISOWNED,
    DROP,
    DUMPED,
    HOLD,
    LOST,
    SPAWN,
    SPAWNED,
    STARTED,
    STOP,
    STRIKE,
    UP,
    ZYGOTE_DIED,
    Inheritance,
)
from hvd.transport.process import run_in_short_slices
from hvd.transport.pulse import Pulse

POWER_OFF_DEADLINE_S = 10.0
REMAINS = "remains"
"""The role of a process whose end is known and told, until it is reaped."""


class Machine:
    """The machine's loop and everything it holds."""

    def __init__(
        self,
        run_dir: str,
        configuration: bytes,
        broker: Callable[[Inheritance], None],
        zygote: Callable[[socket.socket, list[DomainGroups], Pulse], None],
        report: Callable[[str], None],
        *,
        uplinks: dict[str, list[int]] | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._configuration = configuration
        self._broker_main = broker
        self._zygote_main = zygote
        self._report = report
        self._held = Held(uplinks)
        self._machine_groups = MachineGroups()
        self._groups: list[DomainGroups] = []
        self._links: dict[int, tuple[str, socket.socket]] = {}
        """By descriptor: the sockets to broker and zygote."""
        self._broker: socket.socket | None = None
        self._broker_line: BrokerLine | None = None
        self._zygote: socket.socket | None = None
        self._spawns = Spawns()
        self._ends = Ends()
        self._broker_end = ""
        self._epoll = select.epoll()
        self._children = Children(self._epoll)
        self._exits = Exits(self._epoll, self._see_end, self._tell_broker)
        self._dumps = Dumps(run_dir, self._children.add, self._report_live_core)
        self._reach = Reach(self._children.add)
        self._orders = DomainOrders(self._exits, self._dumps, self._reach, self._tell_broker)
        self._watches = Watches(self._children)
        self._strikes = Strikes()
        self._brokers = 0
        self._vitality = Vitality()
        self._stop: bool | None = None
        """None: run on; False: power off; True: reboot."""

    def run(self) -> None:
        """Run until powered off."""
        run_in_short_slices()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._domains_descriptors = soft, hard
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._power_off)
        self._epoll.register(wake_read, select.EPOLLIN)
        gc.freeze()
        while self._stop is not False:
            self._stop = None
            self._groups = self._machine_groups.make()
            self._fork_broker()
            self._fork_zygote()
            while self._stop is None:
                for descriptor, _ in self._epoll.poll(self._wait_s()):
                    if descriptor == wake_read:
                        os.read(wake_read, 4096)
                    else:
                        self._serve(descriptor)
                self._check_zygote()
                self._watches.look(time.monotonic())
                for timed in (self._dumps, self._strikes, self._exits):
                    timed.expire(time.monotonic())
            self._kill_all()
        self._machine_groups.remove()

    def _power_off(self, *_: object) -> None:
        self._stop = False

    def _wait_s(self) -> float:
        timed = (self._spawns, self._dumps, self._watches, self._strikes, self._exits)
        deadlines = [at for each in timed if (at := each.deadline()) is not None]
        return max(0.0, min(deadlines) - time.monotonic())

    # ---- forking -----------------------------------------------------------------------------------------------------

    def _fork_broker(self) -> None:
        ours, theirs = socket_pair()
        theirs.setblocking(True)
        pulse = Pulse()
        alive = [(c.domid, c.incarnation, c.pid) for c in self._children.of("domain")]
        alive += [(domid, incarnation, 0) for domid, incarnation in self._spawns.expected()]
        inheritance = Inheritance(
            link=theirs,
            pulse=pulse,
            run_dir=self._run_dir,
            configuration=self._configuration,
            held=self._held.by_key,
            alive=alive,
            ended=dict(self._ends.known),
            machine_pid=os.getpid(),
            brokers_before=self._brokers,
            predecessor_end=self._broker_end,
        )
        keep = {theirs.fileno(), *(d for descriptors in self._held.by_key.values() for d in descriptors)}
        pid = fork_process("broker", keep, lambda: self._broker_main(inheritance))
        theirs.close()
        self._brokers += 1
        self._broker = ours
        self._adopt("broker", pid, ours, pulse)
        self._broker_line = BrokerLine(ours, self._epoll)

    def _fork_zygote(self) -> None:
        ours, theirs = socket_pair()
        theirs.setblocking(True)
        pulse = Pulse()
        pid = fork_process("zygote", {theirs.fileno()}, lambda: self._be_zygote(theirs, pulse))
        theirs.close()
        self._zygote = ours
        self._adopt("zygote", pid, ours, pulse)

    def _be_zygote(self, link: socket.socket, pulse: Pulse) -> None:
        """Domains get no more descriptors than whoever started us had, and nothing of a pulse."""
        resource.setrlimit(resource.RLIMIT_NOFILE, self._domains_descriptors)
        self._watches.forget()
        pulse.keep_from_children()
        self._zygote_main(link, self._groups, pulse)

    def _adopt(self, role: str, pid: int, link: socket.socket, pulse: Pulse) -> None:
        self._children.add(Child(role, pid))
        self._watches.follow(role, pid, pulse)
        self._links[link.fileno()] = (role, link)
        self._epoll.register(link.fileno(), select.EPOLLIN)

    # ---- events ------------------------------------------------------------------------------------------------------

    def _serve(self, descriptor: int) -> None:
        child = self._children.get(descriptor)
        if child is not None:
            self._reap(child)
        elif (ending := self._exits.take(descriptor)) is not None:
            self._see_end(ending)
        elif descriptor in self._links:
            role, link = self._links[descriptor]
            if role == "broker" and self._broker_line is not None:
                self._broker_line.flush()
            self._read_link(role, link)

    def _read_link(self, role: str, link: socket.socket) -> None:
        while True:
            try:
                received = receive_message(link)
            except BlockingIOError:
                return
            except (PeerFault, ConnectionError):
                received = None
            if received is None:
                self._forget_link(link)
                return
            if role == "broker":
                self._from_broker(*received)
            else:
                self._from_zygote(received[0])

    def _forget_link(self, link: socket.socket) -> None:
        if self._links.pop(link.fileno(), None) is not None:
            self._epoll.unregister(link.fileno())
            link.close()

    def _from_broker(self, message: list[Any], descriptors: list[int]) -> None:
        match message:
            case [verb, str() as key] if verb == HOLD:
                self._held.hold(key, descriptors)
            case [verb, *keys] if verb == DROP:
                self._held.drop_each(keys)
            case [verb, int() as domid, int() as incarnation, str(), list(), list()] if verb == SPAWN:
                self._ends.forget(domid, incarnation)
                self._spawns.add(Spawn(domid, incarnation, message, descriptors))
                self._ask_zygote()
            case [verb, int() as domid, int() as incarnation] if verb == DISOWN:
                self._disown(domid, incarnation)
                self._tell_broker([DISOWNED, domid, incarnation])
            case [verb, int() as domid, int() as incarnation, *rest] if verb in ORDERS:
                child = self._children.domain(domid, incarnation)
                if child is not None:
                    self._orders.carry_out(child, [verb, *rest], self._groups)
            case [verb, str() as role, int() as number, int() as for_ms] if verb == STRIKE:
                for struck in self._children.of(role):
                    self._strikes.strike(struck, number, for_ms / 1000, time.monotonic())
            case [verb] if verb == UP:
                self._vitality.proved("broker")
                for broker in self._children.of("broker"):
                    self._exits.follow(broker, is_waited_for=True)
                self._report("up")
            case [verb, bool() as reboot] if verb == STOP:
                self._stop = reboot

    def _from_zygote(self, message: list[Any]) -> None:
        match message:
            case [verb, int() as domid, int() as incarnation, int() as pid] if verb == SPAWNED:
                self._vitality.proved("zygote")
                if self._spawns.answered(domid, incarnation, time.monotonic()):
                    self._children.add(Child("domain", pid, domid, incarnation))
                    self._tell_broker([STARTED, domid, incarnation, pid])
                else:
                    self._children.end_stray(pid)
            case [verb, int() as domid, int() as incarnation, str() as reason] if verb == SPAWNED:
                if self._spawns.answered(domid, incarnation, time.monotonic()):
                    self._report_end(domid, incarnation, f"never started: {reason}", "")
            case [verb, int() as pid] if verb == LOST:
                self._children.end_stray(pid)
        self._ask_zygote()

    def _disown(self, domid: int, incarnation: int) -> None:
        """A process of an incarnation that the tables do not know, or not yet again: end it and never speak of it.

        Whoever is asked for next, perhaps under the same number, is forked when it is gone.
        """
        child = self._children.domain(domid, incarnation)
        if child is None:
            self._spawns.disown(domid, incarnation)
        else:
            child.role = "stray"
            self._orders.signal(child, signal.SIGKILL, self._groups)

    def _report_end(self, domid: int, incarnation: int, how: str, core: str) -> None:
        self._ends.note(domid, incarnation, how, core)
        self._tell_broker([DIED, domid, incarnation, how, core])

    def _report_live_core(self, domain: Child, said: str) -> None:
        self._tell_broker([DUMPED, domain.domid, domain.incarnation, said])

    def _reap(self, child: Child) -> None:
        """Nothing if it lives: its descriptor may have the number of one that was closed while this was on its way."""
        how = child.reap()
        if how is None:
            if child.is_over():  # and its dumper, which has not noticed, keeps it
                self._dumps.abandon(child, ENDED_BEFORE)
            return
        self._children.remove(child)
        self._exits.forget(child)
        if child.role != REMAINS:
            self._ended_so(child, how)
        for group in self._groups:  # only now: somebody waits for the word of a death
            group.remove(child.pid)

    def _see_end(self, child: Child) -> None:
        """A thread of it has gone: if all are past their program, it has ended. Its remains, and strays, are reaped."""
        if child.role in (REMAINS, "stray") or self._dumps.concern(child):
            return
        if (how := self._exits.how_it_ended(child)) is not None:
            self._ended_so(child, how)
            child.role = REMAINS
            self._exits.let_give_way(child)

    def _ended_so(self, child: Child, how: str) -> None:
        """What follows from an end, told once."""
        self._strikes.forget(child)
        self._reach.forget(child)
        how = self._watches.describe_end(child.role, how)
        match child.role:
            case "domain":
                self._report_end(child.domid, child.incarnation, how, self._dumps.died(child))
            case "stray":
                self._dumps.died(child)
                self._ask_zygote()
            case "dumper":
                self._dumps.ended(child, how)
            case "halter" | "denier":
                self._reach.ended(child, how)
            case role if self._too_many_deaths(role, how):
                self._stop = False
            case "broker":
                self._broker_end = how
                self._broker_died()
            case _:
                self._tell_broker([ZYGOTE_DIED, how])
                self._zygote_died()

    def _too_many_deaths(self, role: str, how: str) -> bool:
        """Then the machine powers off."""
        if not self._vitality.spent(role):
            return False
        self._report(f"{DEATHS_MAX} {role}s in a row died before they did anything (the last: {how}); powering off")
        return True

    def _broker_died(self) -> None:
        """Take in what it had still sent, then fork another from this warm image."""
        if self._broker is not None and self._broker.fileno() in self._links:
            self._read_link("broker", self._broker)
            self._forget_link(self._broker)
        if self._stop is None:
            self._fork_broker()

    def _zygote_died(self) -> None:
        if self._zygote is not None and self._zygote.fileno() in self._links:
            self._read_link("zygote", self._zygote)
            self._forget_link(self._zygote)
        if self._stop is None:
            self._children.end_strangers()
            self._fork_zygote()
            self._spawns.forget_asked()
            self._ask_zygote()

    def _check_zygote(self) -> None:
        """A zygote that beats and does not answer is replaced; what was asked of it is asked again."""
        if self._spawns.is_late(time.monotonic(), is_silent=self._watches.is_silent("zygote")):
            self._spawns.forget_asked()
            self._watches.kill("zygote", f"it did not answer for {PATIENCE_S:g} s")

    # ---- talking -----------------------------------------------------------------------------------------------------

    def _tell_broker(self, message: list[Any]) -> None:
        """Never blocks. A broker that reads nothing is stuck: it is replaced, the next is told all."""
        if self._broker_line is not None and not self._broker_line.tell(message):
            self._watches.kill("broker", f"it let {OUTBOX_MAX} messages wait")

    def _ask_zygote(self) -> None:
        """Give the zygote what it may be asked now; nothing while something is left of what the last one had forked."""
        if self._zygote is None or self._children.of("stray"):
            return
        while (spawn := self._spawns.to_ask()) is not None:
            self._spawns.asked(time.monotonic())
            try:
                send_message(self._zygote, spawn.message, tuple(spawn.descriptors))
            except OSError:
                return  # it is dying: its reaping asks again

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _kill_all(self) -> None:
        """Kill every process and wait until each is gone; drop every descriptor."""
        for child in self._children.of("domain"):
            lift_disks(self._groups, child.pid)
        self._children.kill_all(time.monotonic() + POWER_OFF_DEADLINE_S)
        self._children.end_strangers()  # only now, since the zygote forks no more
        self._children.kill_all(time.monotonic() + POWER_OFF_DEADLINE_S)
        for _, link in list(self._links.values()):
            self._forget_link(link)
        self._spawns.clear()
        self._exits.clear()
        self._dumps.clear()
        self._reach.clear()
        self._strikes, self._ends = Strikes(), Ends()
        self._broker_line, self._broker_end = None, ""
        self._watches.forget()
        self._held.drop_all()
