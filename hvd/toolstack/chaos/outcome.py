"""What one run found: each fault with what became of it, each workload's verdict, latencies, and what was wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvd.toolstack.chaos.schedule import PlannedFault
from hvd.toolstack.chaos.stages import MACHINE, Recovery, first_response_ns
from hvd.toolstack.cluster import LifecycleEvent
from hvd.toolstack.faults.durability import Durability
from hvd.toolstack.faults.killer import percentiles

if TYPE_CHECKING:
    from hvd.toolstack.chaos.load import Load, Running
    from hvd.toolstack.faults.injection import Injection

BUCKET_MS = 100
"""Latencies are kept as percentiles of so much time each."""
BROKER_DEATHS = ("broker-kill",)
"""Faults that the broker dies of."""
ARMED = ("kill-before-notify", "kill-in-transaction")
"""Faults that wait for their moment so long: when they have had it they are over."""


@dataclass(slots=True)
class StruckFault:
    """One fault of a step, from its injection until everybody goes on."""

    step: int
    planned: PlannedFault
    since_start_ns: int
    refused: str = ""
    """Why it was not injected."""
    injection: Injection | None = None
    recoveries: list[Recovery] = field(default_factory=list)
    served: list[Running] = field(default_factory=list)
    activated: bool | None = None
    evidence: str = ""
    over_ns: int = 0
    recovered_ns: int = 0

    def begin(self, load: Load) -> None:
        """It has just been injected."""
        assert self.injection is not None
        names = [victim.name for victim in self.injection.order.victims] or [MACHINE]
        self.recoveries = [Recovery(name, self.injection.injected_at_ns) for name in names]
        self.served = load.running if names == [MACHINE] else load.served_by(names)

    @property
    def lasts_s(self) -> float:
        return 0.0 if self.injection is None else self.injection.order.for_s

    @property
    def decided(self) -> bool:
        """Its time is over, and its witness has spoken."""
        return self.injection is None or (self.injection.over and self.activated is not None)

    def hear(self, event: LifecycleEvent, at_ns: int) -> None:
        """News of anybody."""
        for recovery in self.recoveries:
            recovery.hear(event, at_ns)

    def hear_end(self, event: LifecycleEvent, at_ns: int) -> None:
        """When an end was suspected, fenced and reaped; it may be told when the step is over."""
        for recovery in self.recoveries:
            if recovery.awaits_end:
                recovery.hear_end(event, at_ns)

    @property
    def awaits_end(self) -> bool:
        """Whether it is not told yet when somebody's end was known who has died of it."""
        return any(recovery.awaits_end for recovery in self.recoveries)

    def look(self) -> None:
        """Ask the witness; end it when its time is over; mend what only another life of its victims mends."""
        if self.injection is None:
            return
        if self.activated is None:
            self.activated, self.evidence = self.injection.activated, self.injection.evidence
            if self.activated and self.planned.then_restart:
                for victim in self.injection.order.victims:
                    victim.kill()
            if self.activated and self.planned.name in ARMED:
                self.injection.undo()
        if self.injection.over and not self.injection.undone and self.activated is not None:
            self.injection.undo()
        self.over_ns = self.over_ns or (_now() if self.injection.over else 0)

    def look_at_disks(self, connected: Callable[[Running], bool]) -> None:
        """See whether those that its victims serve are connected again."""
        disks = [each for each in self.served if each.plan.kind == "disk"]
        for recovery in self.recoveries if disks else ():
            waits = "respawn" in recovery.stages_ms and "reconnect" not in recovery.stages_ms
            if waits and all(connected(each) for each in disks):
                recovery.note("reconnect", _now())

    def recovered(self, now_ns: int) -> None:
        """Everybody goes on."""
        self.recovered_ns = now_ns
        for recovery in self.recoveries:
            histories = [each.checker.history for each in self.served]
            ends = [first_response_ns(history.times_ns, recovery.injected_ns, now_ns) for history in histories]
            if ends and None not in ends:
                recovery.note("first response", max(end for end in ends if end is not None))

    def close(self) -> None:
        """Undo it, whatever happened."""
        if self.injection is not None:
            self.injection.undo()

    @property
    def detected(self) -> bool:
        """The machine has noticed a death by it. Nobody is to notice a fault that kills nobody."""
        return any(recovery.died is not None for recovery in self.recoveries)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times in milliseconds since the run's first fault could come."""
        return {
            "step": self.step, "fault": self.planned.name,
            "victims": [recovery.victim for recovery in self.recoveries],
            "seed": self.planned.seed, "for_s": self.lasts_s, "parameters": dict(self.planned.parameters),
            "at_ms": round(self.since_start_ns / 1e6, 3), "injected": self.injection is not None,
            "refused": self.refused,
            "activated": self.activated, "evidence": self.evidence, "detected": self.detected,
            "recovered": bool(self.recovered_ns),
            "recovered_ms": round((self.recovered_ns - self.injection.injected_at_ns) / 1e6, 3)
            if self.injection is not None and self.recovered_ns else None,
            "stages_ms": {recovery.victim: recovery.stages_ms for recovery in self.recoveries},
        }  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """What one run found; `problems` is empty when all was as expected."""

    seed: int
    at: float
    """When it began, in seconds of the wall clock."""
    wall_s: float = 0.0
    plan_digest: str = ""
    """See Plan.digest."""
    kept: Path | None = None
    """Where logs and files of a run are that was not as expected, if they were to be kept."""
    started_ns: int = 0
    ended_ns: int = 0
    calm_until_ns: int = 0
    problems: list[str] = field(default_factory=list)
    faults: list[StruckFault] = field(default_factory=list)
    workloads: list[dict[str, Any]] = field(default_factory=list)
    leaks: dict[str, tuple[int, int]] = field(default_factory=dict)
    new_domains: int = 0
    broker_restarts: int = 0
    durability: dict[str, Durability] = field(default_factory=dict)
    latencies: dict[str, list[list[float]]] = field(default_factory=dict)
    """By workload: [ms since the start, p50, p99, operations] of each bucket."""
    calm_p99_ms: dict[str, float] = field(default_factory=dict)
    faulty_p99_ms: dict[str, float] = field(default_factory=dict)
    bystanders: set[str] = field(default_factory=set)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def broker_deaths(self) -> int:
        """Those that a fault was meant to be."""
        return sum(fault.planned.name in BROKER_DEATHS and fault.injection is not None for fault in self.faults)

    @property
    def broker_crashes(self) -> int:
        """Those that nobody injected."""
        return max(0, self.broker_restarts - self.broker_deaths)

    def take_latencies(self, load: Load) -> None:
        """Of all that was answered until now."""
        for each in load.running:
            times: dict[int, list[float]] = {}
            calm: list[float] = []
            faulty: list[float] = []
            for invoked, answered in each.checker.history.latencies:
                took_ms = (answered - invoked) / 1e6
                times.setdefault((answered - self.started_ns) // (BUCKET_MS * 1_000_000), []).append(took_ms)
                if answered >= self.started_ns:
                    (calm if answered < self.calm_until_ns else faulty).append(took_ms)
            name = each.plan.name
            self.latencies[name] = [
                [bucket * BUCKET_MS, round(p["p50"], 3), round(p["p99"], 3), len(took)]
                for bucket, took in sorted(times.items()) if bucket >= 0 and (p := percentiles(took))
            ]  # fmt: skip
            self.calm_p99_ms[name] = percentiles(calm).get("p99", 0.0)
            self.faulty_p99_ms[name] = percentiles(faulty).get("p99", 0.0)
            if each.bystander:
                self.bystanders.add(name)

    def too_slow(self, factor: int) -> list[str]:
        """Bystanders whose p99 is more than so many times what it was; none when nobody asked (0)."""
        return [
            f"{name} (a bystander): p99 {self.faulty_p99_ms[name]:.2f} ms, {self.calm_p99_ms[name]:.2f} ms before"
            for name in sorted(self.bystanders)
            if factor and self.faulty_p99_ms[name] > factor * self.calm_p99_ms[name]
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seed": self.seed, "plan_digest": self.plan_digest, "at": self.at, "wall_s": self.wall_s,
            "ended_ms": round((self.ended_ns - self.started_ns) / 1e6, 3) if self.started_ns else 0.0,
            "ok": self.ok, "problems": self.problems, "kept": str(self.kept or ""),
            "faults": [fault.as_dict() for fault in self.faults], "workloads": self.workloads, "leaks": self.leaks,
            "new_domains": self.new_domains, "broker_restarts": self.broker_restarts,
            "broker_crashes": self.broker_crashes,
            "durability": {name: found.as_dict() for name, found in self.durability.items()},
            "bystanders": {name: {"calm_p99_ms": self.calm_p99_ms[name], "faulty_p99_ms": self.faulty_p99_ms[name]}
                           for name in sorted(self.bystanders)},
            "latencies": self.latencies,
        }  # fmt: skip


def _now() -> int:
    return time.monotonic_ns()
