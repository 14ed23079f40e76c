"""A driver domain killed again and again under load, with and without a spare: how long its guest waits, for what."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from hvd.toolstack.bench.disks import disk, disk_domain, make_image
from hvd.toolstack.bench.figures import Figure, Goal
from hvd.toolstack.cluster import Cluster, Domain, EventStream, LifecycleEvent
from hvd.toolstack.faults.checker import Checker, Verdict
from hvd.transport.end_moments import REAPED_EVENT, EndMoments, moments_told
from hvd.transport.errors import HvdError
from hvd.transport.messages import DomainConfig
from hvd.transport.process import PIDFD_THREAD

DISK, WRITER = "bench-disk", "bench-writer"
DEADLINE_S = 60.0
PAUSE_S = 0.05
"""Between a driver domain that is whole again and its next death, on average."""
ASIDE_S = 0.05
"""How long we keep off the CPUs that recovery needs: the events that tell of it have their times in them."""
PROGRESS_S = 0.1
"""For the successor's first answers, before it is looked whether there are any."""
OPERATIONS_BETWEEN = 100
STANDS_BY = "stands by"
TOLD = ("died", "starting", "ready", REAPED_EVENT)
COLD, WARM = "", " with a spare"
GOALS = {COLD: (Goal("p50", 10.0), Goal("p99", 50.0)), WARM: (Goal("p50", 2.0), Goal("p99", 10.0))}
"""Of the whole time that its guest waits."""
SUSPECTED = (Goal("p50", 0.15),)
"""Of when the kernel tells us, and of when the machine has heard it, which has to get a CPU for that."""


@dataclass(frozen=True, slots=True)
class Death:
    """When what became of one kill, in nanoseconds of CLOCK_MONOTONIC."""

    killed: int
    suspected: int
    """The kernel told us, who hold pidfds of its threads, of the first, and have a CPU at once where we may."""
    fenced: int
    """The hypervisor knew that none of them ran its program any more, and had begun to take back what it held."""
    started: int
    """Its successor was asked for, or its spare let run."""
    ready: int
    """Its successor served."""
    moments: EndMoments
    """The same as the machine had it, which watches two threads or four, and its reap."""
    completed: int = 0
    """Its guest was given the first answer of the successor's."""


def measure_recovery(
    cluster: Cluster, directory: Path, kills: int, tell: Callable[[str], None], seed: int = 1
) -> tuple[list[Figure], Verdict]:
    """A guest keeps eight operations of up to 256 KiB in flight on a disk whose driver domain is killed.

    So many kills of one without a spare, then of one with; each when the one before is whole again, its spare included.
    """
    figures, verdicts = [], []
    for kind, wants_spare in ((COLD, False), (WARM, True)):
        load = Load(cluster, directory, seed, spare=wants_spare)
        try:
            deaths = load.kill(kills, partial(_tell, tell, kills, kind))
            verdicts.append(load.check())
        finally:
            load.end()
        figures += _figures(kind, deaths, verdicts[-1])
    return figures, Verdict.total(verdicts)


def _tell(tell: Callable[[str], None], kills: int, kind: str, number: int) -> None:
    tell(f"kill {number} of {kills}{kind}")


class Load:
    """One driver domain, its guest, and the checker that follows it."""

    def __init__(
        self, cluster: Cluster, directory: Path, seed: int, *, spare: bool, cpus: Sequence[int] = ()
    ) -> None:
        image, acks = make_image(directory / f"recovery-{spare}.img"), directory / f"acks-{spare}"
        self.cluster = cluster
        self._random = random.Random(seed)
        self._spare = spare
        self.checker = Checker(str(image), str(acks), seed)
        self._driver = cluster.create(replace(disk_domain(DISK, cpus), spare=spare))
        config = DomainConfig(
            WRITER, "hvd:disk_exerciser", args=[f"acks={acks}", f"seed={seed}"], on_crash="preserve",
            devices=[disk(image, DISK)], paths=[f"{acks}:w"], cpus=list(cpus),
        )  # fmt: skip
        self._writer = cluster.create(config)
        self._writer.wait_ready(DEADLINE_S)

    def kill(self, kills: int, tell: Callable[[int], None]) -> list[Death]:
        """HvdError when one was not recovered from."""
        deaths = []
        with self.cluster.events() as events:
            for number in range(1, kills + 1):
                tell(number)
                self._wait_whole()
                _pass(events, self._random.uniform(0, 2 * PAUSE_S))
                death = self.kill_once(events)
                self._wait_for_progress(death.killed)
                deaths.append(death)
                if number % 10 == 0:
                    self.check()
        return completed(deaths, self.checker.times_ns)

    def kill_once(self, events: EventStream) -> Death:
        """Without what its guest sees of it."""
        return kill_driver(self._driver, events)

    def check(self) -> Verdict:
        """Of all that has been written. The writer is paused: it asks for nothing new while we look."""
        self._writer.pause()
        verdict = self.checker.check()
        self._writer.unpause()
        return verdict

    def stop(self) -> Verdict:
        """Check, and end it."""
        verdict = self.check()
        self.end()
        return verdict

    def end(self) -> None:
        self._writer.destroy()
        self._driver.destroy()

    def _wait_whole(self) -> None:
        until = time.monotonic() + DEADLINE_S
        while self._spare and self._driver.info().spare != STANDS_BY:
            if time.monotonic() > until:
                raise HvdError(f"no spare of {DISK} stands by: {self._driver.info().spare}")
            time.sleep(0.002)

    def _wait_for_progress(self, killed_ns: int) -> None:
        """Until the writer has been given so many answers since the kill: its disk works again."""
        until = time.monotonic() + DEADLINE_S
        times = self.checker.times_ns
        while len(times) - bisect_right(times, killed_ns) < OPERATIONS_BETWEEN:
            if time.monotonic() > until:
                why = f"(it is {self._writer.state}: {self._writer.last_death})"
                raise HvdError(f"the writer has completed nothing for {DEADLINE_S:g} s {why}")
            time.sleep(PROGRESS_S)
            self.checker.follow()


def completed(deaths: list[Death], times_ns: Sequence[int]) -> list[Death]:
    """The same, with what their guest was told when."""
    ends = [*(death.killed for death in deaths[1:]), time.monotonic_ns()]
    return [
        replace(death, completed=first_completion_ns(times_ns, death.killed, death.ready, until))
        for death, until in zip(deaths, ends, strict=True)
    ]


def first_completion_ns(times_ns: Sequence[int], killed_ns: int, ready_ns: int, until_ns: int) -> int:
    """When the longest silence ended that began after a kill and before its successor served; `until_ns` if none did.

    What the dead backend had answered already may still be taken from the ring after its death: that ends no wait.
    """
    after = [killed_ns, *times_ns[bisect_right(times_ns, killed_ns) : bisect_left(times_ns, until_ns)]]
    gaps = [(later - earlier, later) for earlier, later in pairwise(after) if earlier <= ready_ns]
    return max(gaps)[1] if gaps else until_ns


def kill_driver(driver: Domain, events: EventStream) -> Death:
    """SIGKILL, and the times until its successor serves; HvdError when none does."""
    pid = driver.pid
    if pid is None:
        raise HvdError(f"{driver.name} has no process: {driver.info()}")
    with _pidfds(pid) as (whole, *threads):
        offset = time.time_ns() - time.monotonic_ns()
        with run_at_once():
            killed = time.monotonic_ns()
            signal.pidfd_send_signal(whole, signal.SIGKILL)
            select.select([whole, *threads], [], [], DEADLINE_S)
            suspected = time.monotonic_ns()
        time.sleep(ASIDE_S)
    told = _told(events, driver)
    fenced, started, ready, told_ns = (told[event].at_ns - offset for event in TOLD)
    return Death(killed, suspected, fenced, started, ready, moments_told(told[REAPED_EVENT].detail, told_ns))


@contextmanager
def run_at_once() -> Iterator[None]:
    """Where we may, we have a CPU as soon as the kernel tells us something: else we would wait for those who recover.

    For a moment only: they wait for us then.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@contextmanager
def _pidfds(pid: int) -> Iterator[list[int]]:
    """Of a process and of each of its threads, as its machine has them; before Linux 6.9 of the process alone."""
    descriptors = [os.pidfd_open(pid)]
    try:
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                descriptors.append(os.pidfd_open(int(thread.name), PIDFD_THREAD))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _told(events: EventStream, driver: Domain) -> dict[str, LifecycleEvent]:
    """The next of each kind in TOLD: a death, and what follows it. The reap's is told at any time behind the death."""
    found: dict[str, LifecycleEvent] = {}
    while absent := [kind for kind in TOLD if kind not in found]:
        told = events.next_until(time.monotonic() + DEADLINE_S)
        if told is None:
            raise HvdError(f"{driver.name} has said nothing of being {absent[0]} for {DEADLINE_S:g} s")
        if told.domid != driver.domid:
            continue
        if told.event in ("failed", "destroyed"):
            raise HvdError(f"{driver.name} did not come back: {told.event}: {told.detail}")
        if told.event == REAPED_EVENT:
            if "died" in found and told.incarnation == found["died"].incarnation:
                found[REAPED_EVENT] = told
        elif told.event == absent[0]:
            found[told.event] = told
    return found


def _pass(events: EventStream, seconds: float) -> None:
    """Let so much time pass, and the events in it."""
    until = time.monotonic() + seconds
    while events.next_until(until) is not None:
        continue


def _figures(kind: str, deaths: list[Death], verdict: Verdict) -> list[Figure]:
    failures = verdict.failed + verdict.breaches
    bound = f"{failures} operations lost, wrong or failed in {len(deaths)} kills"
    if not failures:
        bound += f": at 95 %, of fewer than {100 * 3 / len(deaths):.2g} % of kills"
    steps = (
        ("death to suspicion", [d.suspected - d.killed for d in deaths], SUSPECTED, "its first thread"),
        ("death to fence", [d.fenced - d.killed for d in deaths], (Goal("p50", 2.0),), "no thread runs on"),
        ("death to the machine's suspicion", [d.moments.suspected_ns - d.killed for d in deaths], SUSPECTED, ""),
        ("death to the machine's fence", [d.moments.fenced_ns - d.killed for d in deaths], (), ""),
        ("death to the machine's reap", [d.moments.reaped_ns - d.killed for d in deaths], (), "nobody waits for it"),
        ("fence to its successor's start", [d.started - d.fenced for d in deaths], (), ""),
        ("start to its readiness", [d.ready - d.started for d in deaths], (), "its process, and its offers"),
        ("fence to the guest's next completed request", [d.completed - d.fenced for d in deaths], (), ""),
    )
    figures = [
        Figure(f"driver domain{kind}: {name}", "ms", [at / 1e6 for at in times], goals, note)
        for name, times, goals, note in steps
    ]
    whole = [(d.completed - d.killed) / 1e6 for d in deaths]
    name = f"driver domain{kind} SIGKILL to the guest's next completed request"
    return [*figures, Figure(name, "ms", whole, GOALS[kind], bound)]
