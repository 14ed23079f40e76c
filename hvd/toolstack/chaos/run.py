"""One run of a scenario: a cluster of its own, its load, the steps of one seed, and everything that is to be judged."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hvd.toolstack.chaos.load import Load, Running
from hvd.toolstack.chaos.outcome import Outcome, StruckFault
from hvd.toolstack.chaos.plan import Plan
from hvd.toolstack.chaos.schedule import PlannedFault, Step, schedule
from hvd.toolstack.cluster import Cluster, DomainInfo, DomainState, EventStream, LifecycleEvent
from hvd.toolstack.cluster.configuration import plan_of
from hvd.toolstack.faults.conservation import Census, census, settled
from hvd.toolstack.faults.injection import inject
from hvd.toolstack.faults.processes import threads
from hvd.transport.end_moments import REAPED_EVENT
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallTimeout
from hvd.transport.messages import DomainConfig

BOOT_S = 60.0
FINISH_S = 60.0
CALM_S = 0.2
"""Of load before the first fault: what latencies are compared with."""
TICK_S = 0.004
"""Between two looks while a recovery is waited for: as exact as `reconnect` is."""
WITNESS_S = 2.5
"""How long a witness may take behind the end of a fault; then nobody has seen it."""
CENSUS_TICK_S = 0.01
ENDS_S, ENDS_OF_MOST = 2.0, 16
"""How long, when all steps are over, it is waited for news of ends; of how many faults, the last ones, it is heard."""
LOGS, FILES = "log", "files"
"""Of what is kept of a run: consoles, the hypervisor's among them; images, histories and whatever is the load's."""
NEWCOMER = "chaos-newcomer"


class Unhealthy(HvdError):
    """Something that was expected does not hold; the run ends."""


def run(plan: Plan, seed: int, tell: Callable[[str], None], keep: Path | None = None) -> Outcome:
    """Carry out the schedule of a seed; what was found. Nothing is left of the cluster and its files.

    `keep`: a directory to be made, if the run is not as expected, for logs of consoles and what workloads wrote.
    """
    outcome = Outcome(seed, time.time(), plan_digest=plan.digest())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hvd-chaos-") as name:
        load = Load(plan, seed, Path(name))
        try:
            with Cluster(plan_of(load.prepared(plan.cluster))) as cluster:
                try:
                    _Run(plan, cluster, load, outcome, tell).all()
                except HvdError:
                    _keep(outcome, keep, cluster, Path(name))
                    raise
        except HvdError as error:
            outcome.problems.append(str(error) if isinstance(error, Unhealthy) else f"{type(error).__name__}: {error}")
    outcome.wall_s = round(time.monotonic() - started, 3)
    return outcome


def _keep(outcome: Outcome, keep: Path | None, cluster: Cluster, files: Path) -> None:
    """While they are there; what an earlier run of the seed has left goes."""
    outcome.ended_ns = time.monotonic_ns()
    if keep is None:
        return
    shutil.rmtree(keep, ignore_errors=True)
    shutil.copytree(files, keep / FILES)
    shutil.copytree(cluster.run_dir / LOGS, keep / LOGS)
    outcome.kept = keep


class _Run:
    """While the cluster is up."""

    def __init__(
        self, plan: Plan, cluster: Cluster, load: Load, outcome: Outcome, tell: Callable[[str], None]
    ) -> None:
        self._plan, self._cluster, self._load, self._outcome, self._tell = plan, cluster, load, outcome, tell
        self._wanted: set[str] = set()
        self._before = Census({})
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()

    def all(self) -> None:
        """Load, steps, end. Unhealthy, with what was found in the outcome, as soon as something is not as expected."""
        self._tell("starting the load")
        self._load.start(self._cluster, BOOT_S)
        with self._cluster.events() as events:
            self._wait_for_progress(events)
            self._pass(events, CALM_S)
            self._outcome.calm_until_ns = time.monotonic_ns()
            self._outcome.started_ns = self._outcome.calm_until_ns - int(CALM_S * 1e9)
            self._wanted = {info.name for info in self._cluster.infos().values() if info.ready}
            self._before = settled(self._cluster, self._load.follow)
            try:
                for step in schedule(self._plan, self._outcome.seed):
                    self._step(step, events)
                self._look_after(self._plan.steps, last=True)
                self._hear_last_ends(events)
            finally:
                self._outcome.take_latencies(self._load)
        self._end()
        self._outcome.ended_ns = time.monotonic_ns()

    # ---- one step ---------------------------------------------------------------------------------------------------

    def _step(self, step: Step, events: EventStream) -> None:
        self._tell(f"step {step.number} of {self._plan.steps}: {', '.join(map(str, step.faults))}")
        self._pass(events, step.pause_s)
        self._load.follow()
        struck = [self._strike(step.number, planned) for planned in step.faults]
        self._outcome.faults += struck
        try:
            self._recover([each for each in struck if each.injection is not None], events)
        finally:
            for each in struck:
                each.close()
        self._look_after(step.number)

    def _strike(self, number: int, planned: PlannedFault) -> StruckFault:
        struck = StruckFault(number, planned, time.monotonic_ns() - self._outcome.started_ns)
        try:
            struck.injection = inject(
                self._cluster, planned.name, planned.victims, planned.for_s, planned.seed, **dict(planned.parameters)
            )
        except (HvdError, OSError) as error:
            struck.refused = str(error)
        else:
            struck.begin(self._load)
            struck.look()
        return struck

    def _recover(self, struck: list[StruckFault], events: EventStream) -> None:
        """Until every fault is over and everybody goes on; Unhealthy at the deadline."""
        lasts_s = max((each.lasts_s for each in struck), default=0.0)
        until = time.monotonic() + lasts_s + self._plan.expect.recovered_ms / 1000
        witnesses_until = time.monotonic() + lasts_s + WITNESS_S
        done: list[int] | None = None
        while True:
            self._hear(events, TICK_S, struck)
            self._load.follow()
            if done is None and (all(each.decided for each in struck) or time.monotonic() > witnesses_until):
                done = self._load.done()
            try:
                missing = self._look(struck, done)
            except HypercallTimeout:
                missing = ["the broker to answer"]
            if not missing:
                break
            if time.monotonic() > until:
                late = f"{self._plan.expect.recovered_ms} ms after {', '.join(str(each.planned) for each in struck)}"
                raise Unhealthy(f"not recovered {late}: waiting for {self._with_reasons(missing)}")
        now = time.monotonic_ns()
        for each in struck:
            each.recovered(now)

    def _look(self, struck: Sequence[StruckFault], done: list[int] | None) -> list[str]:
        """Who is waited for; `done`: what the workloads had done when the last fault was over, None while it is not."""
        for each in struck:
            each.look()
            each.look_at_disks(lambda load: self._load.connected(self._cluster, load))
        if done is None:
            return [f"{each.planned.name} to be over" for each in struck if not each.decided] or ["the faults"]
        return self._missing(done)

    def _missing(self, done: list[int]) -> list[str]:
        infos = {info.name: info for info in self._cluster.infos().values()}
        running = {name for name, info in infos.items() if info.ready and info.state is DomainState.RUNNING}
        absent = sorted(self._wanted - running)
        return absent or self._load.unreached(done, self._plan.expect.progress)

    def _with_reasons(self, missing: list[str]) -> str:
        """Who is waited for, each with what it does and has done: afterwards nobody can ask its threads any more."""
        infos = {info.name: info for info in self._cluster.infos().values()}
        verdicts = {each.plan.name: each.verdict.lines() for each in self._load.running}
        return ", ".join(
            f"{who} ({'; '.join((doing(infos[who]), *verdicts.get(who, ())))})" if who in infos else who
            for who in missing
        )

    # ---- what is to hold --------------------------------------------------------------------------------------------

    def _look_after(self, number: int, *, last: bool = False) -> None:
        expect = self._plan.expect
        self._raise_if(self._load.check() + self._load.failed(expect.failed))
        if expect.conserved:
            self._raise_if(self._leaks())
        every = expect.new_domain_every
        if every and (last or number % every == 0):
            self._create_one()
        self._outcome.broker_restarts = self._cluster.info()["broker_restarts"]
        if self._outcome.broker_crashes:
            deaths = f"{self._outcome.broker_restarts} times, {self._outcome.broker_deaths} of them by a fault"
            self._raise_if([f"the broker died {deaths}"])

    def _leaks(self) -> list[str]:
        until = time.monotonic() + self._plan.expect.recovered_ms / 1000
        while changed := census(self._cluster).difference(self._before):
            if time.monotonic() > until:
                self._outcome.leaks = changed
                told = (f"{name} {was} -> {now}" for name, (was, now) in changed.items())
                return [f"not conserved: {', '.join(told)}"]
            time.sleep(CENSUS_TICK_S)
            self._load.follow()
        return []

    def _create_one(self) -> None:
        domain = self._cluster.create(DomainConfig(NEWCOMER, "hvd:idle"))
        try:
            domain.wait_ready(self._plan.expect.recovered_ms / 1000)
            self._outcome.new_domains += 1
        finally:
            domain.destroy()

    def _end(self) -> None:
        """The load comes to its end, and nothing may be missing then."""
        self._tell("ending the load")
        problems = self._load.finish(self._cluster, FINISH_S)
        self._outcome.workloads = [_workload(each) for each in self._load.running]
        if self._plan.expect.durable:
            self._tell("cutting the power")
            self._outcome.durability = self._load.durability()
            problems += [f"{name}: {found.lost} sectors lost by power cuts: {found.examples[0]}"
                         for name, found in self._outcome.durability.items() if found.lost]  # fmt: skip
        self._raise_if(problems + self._outcome.too_slow(self._plan.expect.bystander_p99_factor))

    def _raise_if(self, problems: list[str]) -> None:
        if problems:
            self._outcome.workloads = [_workload(each) for each in self._load.running]
            raise Unhealthy("; ".join(problems))

    # ---- waiting ----------------------------------------------------------------------------------------------------

    def _wait_for_progress(self, events: EventStream) -> None:
        until = time.monotonic() + BOOT_S
        zero = [0] * len(self._load.running)
        while left := self._load.unreached(zero, self._plan.expect.progress):
            if time.monotonic() > until:
                raise Unhealthy(f"the load does not start: {', '.join(left)}")
            self._hear(events, TICK_S, ())
            self._load.follow()

    def _pass(self, events: EventStream, seconds: float) -> None:
        """Let so much time pass, and the events in it."""
        until = time.monotonic() + seconds
        while (event := events.next_until(until)) is not None:
            self._hear_end(event)

    def _hear(self, events: EventStream, seconds: float, struck: Sequence[StruckFault]) -> None:
        until = time.monotonic() + seconds
        while (event := events.next_until(until)) is not None:
            for each in struck:
                each.hear(event, event.at_ns - self._wall_offset_ns)
            self._hear_end(event)

    def _hear_end(self, event: LifecycleEvent) -> None:
        """It is told a while after it, when another step may have begun."""
        if event.event == REAPED_EVENT:
            for each in self._outcome.faults[-ENDS_OF_MOST:]:
                each.hear_end(event, event.at_ns - self._wall_offset_ns)

    def _hear_last_ends(self, events: EventStream) -> None:
        until = time.monotonic() + ENDS_S
        while any(each.awaits_end for each in self._outcome.faults[-ENDS_OF_MOST:]) and time.monotonic() < until:
            self._hear(events, TICK_S, ())


def doing(info: DomainInfo) -> str:
    """What a domain does, by the hypervisor's tables and by the kernel's."""
    ready = "ready" if info.ready else "not ready"
    died = [f"died last of: {info.last_death}"] if info.last_death else []
    told = f"{info.state_text}, {ready}, incarnation {info.incarnation}"
    return "; ".join((told, *died, *threads(info.pid or 0)))


def _workload(each: Running) -> dict[str, Any]:
    kind, name, bystander = each.plan.kind, each.plan.name, each.bystander
    return {"name": name, "kind": kind, "bystander": bystander, **each.verdict.as_dict()}

