"""The cores that the machine was told to have written: who waits, who is being dumped, until when, and how it ended.

A dumper is a fork of the machine that reads the stopped process from outside; the machine waits for neither. When it
ends, however it ends, the process is killed, or lives on if that was the order. One that dies before gets no core, and
its dumper is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from hvd.machine.children import Child
from hvd.machine.processes import fork_process
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.records import dataclass
from hvd.transport.run_dir import CORES, PART, part_of

DUMPS_AT_A_TIME = 4
"""Dumpers that run at a time; whoever is to be dumped beside them stands still and waits."""
PATIENCE_S, LIVE_PATIENCE_S = 30.0, 300.0
"""How long one may take; then it is killed, and what it dumps as well, unless that is to live on."""
OUTCOME_BYTES_MAX = 4096
ENDED_BEFORE = "it ended before its core was written"


@dataclass(slots=True)
class Dump:
    """One order."""

    domain: Child
    path: str
    part: str
    fault: list[int]
    lives_on: bool = False
    """Its process is not killed for it: `tell` is told in place of that."""
    then: Dump | None = None
    """The domain has ended meanwhile: its last core is to be taken when this one is over."""
    dumper: Child | None = None
    deadline: float = 0.0
    outcome: int = -1
    """The read end of a pipe on which the dumper says what became of it."""
    abandoned: str = ""
    """Why there is to be none."""
    domain_gone: bool = False
    """Its process was reaped, and what is said of the core now is said to nobody."""

    def said(self) -> str:
        """What the dumper has said by now."""
        try:
            return os.read(self.outcome, OUTCOME_BYTES_MAX).decode(errors="replace")
        except BlockingIOError:
            return ""

    @property
    def key(self) -> tuple[int, int]:
        return self.domain.domid, self.domain.incarnation

    @property
    def patience_s(self) -> float:
        return LIVE_PATIENCE_S if self.lives_on else PATIENCE_S


class Dumps:
    """All orders by (domid, incarnation), in order."""

    def __init__(
        self, run_dir: str, adopt: Callable[[Child], None], tell: Callable[[Child, str], None]
    ) -> None:
        """`adopt` has the machine reap a new child; `tell` says what became of a live domain's core."""
        self._cores = f"{run_dir}/{CORES}"
        self._adopt = adopt
        self._tell = tell
        self._orders: dict[tuple[int, int], Dump] = {}
        self._outcomes: dict[tuple[int, int], str] = {}
        """Of those that are over, until their process's death is reported."""

    def order(self, domain: Child, name: str, fault: list[int]) -> None:
        """Stop it now, dump it when it is its turn, then kill it. Nothing if it was ordered before."""
        path = f"{self._cores}/{os.path.basename(name)}.core"
        dump = Dump(domain, path, path + PART, fault)
        before = self._orders.get(dump.key)
        if before is not None and before.lives_on:
            before.then = dump
            self.abandon(domain, "the domain has ended")
        elif before is None and dump.key not in self._outcomes:
            domain.signal(signal.SIGSTOP)
            self._take(dump)

    def order_live(self, domain: Child, path: str) -> None:
        """Dump it to that file when it is its turn. Nothing if a core of it was ordered before."""
        dump = Dump(domain, path, part_of(path, domain.domid, domain.incarnation), [], lives_on=True)
        if dump.key not in self._orders and dump.key not in self._outcomes:
            self._take(dump)

    def _take(self, dump: Dump) -> None:
        self._orders[dump.key] = dump
        self._begin()

    def abandon(self, domain: Child, why: str) -> None:
        """It is to die, or has died, without waiting for its core; nothing if there is no order."""
        dump = self._orders.get((domain.domid, domain.incarnation))
        if dump is None or dump.abandoned:
            return
        dump.abandoned = why
        if dump.dumper is None:
            self._finish(dump, f"no core: {why}")
        else:
            dump.dumper.signal(signal.SIGKILL)

    def ended(self, dumper: Child, how: str) -> None:
        """A dumper was reaped: kill what it dumped, and let the next begin."""
        dump = next(dump for dump in self._orders.values() if dump.dumper is dumper)
        said = dump.said()
        os.close(dump.outcome)
        self._discard_part(dump)
        self._finish(dump, said or f"no core: {dump.abandoned or f'its dumper died: {how}'}")

    def concern(self, domain: Child) -> bool:
        """Whether a core of it was ordered."""
        key = domain.domid, domain.incarnation
        return key in self._orders or key in self._outcomes

    def died(self, domain: Child) -> str:
        """A domain's process was reaped: what became of its core; "" if none was ordered."""
        key = domain.domid, domain.incarnation
        dump = self._orders.get(key)
        if dump is None:
            return self._outcomes.pop(key, "")
        dump.domain_gone = True
        said = dump.said() if dump.dumper is not None else ""
        self.abandon(domain, ENDED_BEFORE)
        self._discard_part(dump)  # its dumper may be reaped a moment later
        said = said or f"no core: {dump.abandoned}"
        if dump.lives_on:
            self._tell(domain, said)
            return "" if dump.then is None else f"no core: {ENDED_BEFORE}"
        return said

    def deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min((dump.deadline for dump in self._running() if not dump.abandoned), default=None)

    def expire(self, now: float) -> None:
        """Kill the dumpers that take too long."""
        for dump in list(self._running()):
            if dump.deadline <= now:
                self.abandon(dump.domain, f"it was not written within {dump.patience_s:g} s")

    def clear(self) -> None:
        """Every process is dead: nothing half written stays."""
        for dump in self._running():
            os.close(dump.outcome)
            self._discard_part(dump)
        self._orders.clear()
        self._outcomes.clear()

    def _running(self) -> list[Dump]:
        return [dump for dump in self._orders.values() if dump.dumper is not None]

    def _begin(self) -> None:
        waiting = [dump for dump in self._orders.values() if dump.dumper is None]
        for dump in waiting[: max(0, DUMPS_AT_A_TIME - len(self._running()))]:
            try:
                self._fork(dump)
            except OSError as error:
                self._finish(dump, f"no core: fork: {error.strerror}")
                return  # which began the next

    def _fork(self, dump: Dump) -> None:
        dump.outcome, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid = fork_process("dumper", {write}, lambda: self._be_dumper(dump, write))
            dumper = Child("dumper", pid, dump.domain.domid, dump.domain.incarnation)
        except OSError:
            os.close(dump.outcome)
            raise
        finally:
            os.close(write)
        dump.dumper = dumper
        dump.deadline = time.monotonic() + dump.patience_s
        self._adopt(dumper)

    def _be_dumper(self, dump: Dump, outcome: int) -> None:
        """Loaded here, since most machines never dump: it would be part of every boot."""
        from pathlib import Path

        from hvd.machine import dumper

        process = dump.domain.pid, dump.domain.domid
        if dump.lives_on:
            said = dumper.dump(process, dumper.Target(Path(dump.path), Path(dump.part), bytes_max=sys.maxsize))
        else:
            notice = FaultNotice(*dump.fault) if dump.fault else None
            said = dumper.dump_dying(process, Path(self._cores), Path(dump.path).stem, notice)
        os.write(outcome, said.encode()[:OUTCOME_BYTES_MAX])

    def _finish(self, dump: Dump, said: str) -> None:
        del self._orders[dump.key]
        if not dump.domain_gone:
            self._hand_back(dump, said)
        self._begin()

    def _hand_back(self, dump: Dump, said: str) -> None:
        """Its process is whoever's turn it is."""
        if not dump.lives_on:
            self._outcomes[dump.key] = said
            dump.domain.signal(signal.SIGKILL)
            return
        self._tell(dump.domain, said)
        if dump.then is not None:
            dump.domain.signal(signal.SIGSTOP)
            self._orders[dump.key] = dump.then

    def _discard_part(self, dump: Dump) -> None:
        with contextlib.suppress(OSError):  # whatever somebody has made of that directory
            os.unlink(dump.part)
