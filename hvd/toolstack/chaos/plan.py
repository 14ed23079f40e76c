"""Reads a scenario's plan (TOML): the cluster, its load, the faults to choose from, and what is expected meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hvd.toolstack.config import ClusterConfig, load
from hvd.toolstack.config.document import document_of, text_of
from hvd.toolstack.config.names import DOM0_NAME, full_name
from hvd.toolstack.config.problems import Report, nearest, shown
from hvd.toolstack.config.table import Table
from hvd.toolstack.faults.fault import Aim
from hvd.toolstack.faults.registry import FAULTS

KINDS = ("disk", "console", "store", "program")
PROGRAM = "program"
FAULTS_MAX = 10_000
MS_MAX = 600_000
SEED_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Workload:
    """One domain that does something all the time, and all that it did is judged.

    The scenario adds it, but for a program: that is a domain of the cluster's own, which writes a history itself.
    """

    kind: str
    """disk, console, store or program."""
    name: str
    """Of its domain; it may be a fault's victim like any other."""
    backend: str = ""
    """The driver domain that serves a disk."""
    pace_ms: int = 1
    """Between two things it does."""


@dataclass(frozen=True, slots=True)
class FaultChoice:
    """One of the faults that a step may be."""

    name: str
    victims: tuple[str, ...]
    """One of these is hit; with a fault of a group all are."""
    weight: int = 1
    for_ms: tuple[int, int] | None = None
    """Least and most; None: as long as the fault lasts by itself."""
    parameters: tuple[tuple[str, int], ...] = ()
    then_restart: bool = False
    """Its victims are killed when it was seen to take effect: what mends a fault that lasts as long as they live."""


@dataclass(frozen=True, slots=True)
class Expectations:
    """What has to hold after each fault; the run ends at the first that does not."""

    recovered_ms: int = 10_000
    """Every domain is ready and every workload goes on, so soon after the fault is over."""
    progress: int = 5
    """Operations that are ok by which a workload shows that it goes on."""
    conserved: bool = True
    """Ports, grants, mappings, shared memory, descriptors, processes and nodes are what they were before."""
    new_domain_every: int = 10
    """A new domain can be created, looked at after every so many steps and at the end; 0: never."""
    durable: bool = True
    """At the end: no power cut would have lost what a FLUSH was answered for."""
    failed: int = 0
    """Operations of each workload that may end with an error. A bystander's may not, whatever is written here."""
    bystander_p99_factor: int = 0
    """The p99 of bystanders while faults are there, over theirs before, is at most this; 0: reported only."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario as its file describes it. What a run does follows from it and a seed alone."""

    file: Path
    name: str
    cluster: ClusterConfig
    cluster_file: Path
    steps: int
    """Faults of a run come in so many steps, one behind the other."""
    burst: tuple[int, int]
    """Faults of one step, least and most: they begin together, on different victims."""
    pause_ms: tuple[int, int]
    """Between two steps."""
    seed: int
    workloads: tuple[Workload, ...]
    faults: tuple[FaultChoice, ...]
    expect: Expectations = field(default_factory=Expectations)

    @property
    def bystanders(self) -> tuple[str, ...]:
        """Workloads that no fault of the plan is for, themselves or by the domain that serves them."""
        aims = [(FAULTS[choice.name].aim, choice.victims) for choice in self.faults]
        if any(aim is Aim.SPARED or (aim is Aim.GROUP and not victims) for aim, victims in aims):
            return ()  # it is for everybody
        hit = {victim for _, victims in aims for victim in victims}
        return tuple(load.name for load in self.workloads if not {load.name, *self.servers(load)} & hit)

    def digest(self) -> str:
        """Of the plan's file, the cluster's and its kernels' as they are now: a run of others is no run of this one."""
        digest = hashlib.sha256()
        kernels = (Path(domain.kernel) for domain in self.cluster.domains)
        for path in (self.file, self.cluster_file, *kernels):
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def servers(self, load: Workload) -> frozenset[str]:
        """The domains without which a workload waits."""
        if load.kind != PROGRAM:
            return frozenset({load.backend or DOM0_NAME})
        return frozenset(device.backend for device in self.cluster.domain(load.name).devices)


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file; ConfigError names everything that is wrong with it, or with the cluster's file."""
    text = text_of(path, "a plan")
    report = Report(os.fspath(path), text)
    plan = _read(Table(report, (), document_of(path, text)), Path(path).absolute())
    report.raise_if_wrong()
    return plan


def _read(root: Table, file: Path) -> Plan:
    report = root.report
    scenario = Table(report, ("scenario",), _table(root, "scenario"))
    cluster_name = scenario.text("cluster", None)
    name = scenario.text("name", file.stem)
    steps = scenario.whole("steps", 20, 1, FAULTS_MAX)
    burst = _span(scenario, "burst", (1, 1), 1, 16)
    pause_ms = _span(scenario, "pause_ms", (10, 100), 0, MS_MAX)
    seed = scenario.whole("seed", 1, 0, SEED_MAX)
    scenario.finish()
    workload_tables, fault_tables = root.tables("workload", "workload"), root.tables("fault", "fault")
    expect = _expectations(Table(report, ("expect",), _table(root, "expect")))
    root.finish()
    report.raise_if_wrong()  # what follows compares with the cluster
    cluster_file = file.parent / cluster_name
    cluster = load(cluster_file)
    hosts = [DOM0_NAME, *(domain.name for domain in cluster.domains if domain.driver_domain)]
    workloads = [_workload(table, hosts) for table in workload_tables]
    there = [DOM0_NAME, *(domain.name for domain in cluster.domains)]
    for number, table in enumerate(workload_tables):
        _check_name(table, workloads[number], there, [load.name for load in workloads[:number]])
    known = [*there, *(load.name for load in workloads if load.kind != PROGRAM)]
    faults = [choice for table in fault_tables if (choice := _fault(table, known)) is not None]
    if not fault_tables:
        report.wrong(("fault",), "at least one [[fault]]", "none")
    return Plan(
        file, name, cluster, cluster_file, steps, burst, pause_ms, seed, tuple(workloads), tuple(faults), expect
    )


def _table(root: Table, key: str) -> dict[str, object]:
    value = root.take(key)
    if value is None or isinstance(value, dict):
        return value or {}
    root.report.wrong(root.at(key), "a table", shown(value))
    return {}


def _workload(table: Table, hosts: Sequence[str]) -> Workload:
    name = table.name("name")
    table.report.label(table.place, name)
    kind = table.choice("kind", "disk", KINDS)
    backend = table.text("backend", None) if kind == "disk" else ""
    if backend and full_name(backend) not in hosts:
        expected = "the name of a driver domain of the cluster"
        table.report.wrong(table.at("backend"), expected, shown(backend), nearest(backend, hosts))
    pace_ms = table.whole("pace_ms", 1, 0, MS_MAX)
    table.finish()
    return Workload(kind, name, full_name(backend) if backend else "", pace_ms)


def _check_name(table: Table, load: Workload, there: Sequence[str], before: Sequence[str]) -> None:
    if load.kind == PROGRAM and load.name not in there:
        expected = "the name of a domain of the cluster, whose program writes a history"
        table.report.wrong(table.at("name"), expected, shown(load.name), nearest(load.name, there))
    elif load.name in before or (load.kind != PROGRAM and load.name in there):
        table.report.wrong(table.at("name"), "a name of its own", shown(load.name))


def _fault(table: Table, known: Sequence[str]) -> FaultChoice | None:
    name = table.text("name", None)
    fault = FAULTS.get(name)
    if name and fault is None:
        table.report.wrong(table.at("name"), "a fault (`hvd fault list`)", shown(name), nearest(name, FAULTS))
    if fault is None:
        return None
    table.report.label(table.place, name)
    victims = _victims(table, fault.aim, known)
    weight = table.whole("weight", 1, 1, 1000)
    for_ms = None if fault.for_s is None else _span(table, "for_ms", (0, 0), 1, MS_MAX)
    parameters = tuple(
        (each.name, table.whole(each.name, each.default, each.least, each.most)) for each in fault.parameters
    )
    then_restart = table.flag("then_restart", default=False)
    table.finish()
    return FaultChoice(name, victims, weight, None if for_ms == (0, 0) else for_ms, parameters, then_restart)


def _victims(table: Table, aim: Aim, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(full_name(victim) for victim in table.texts("victims", "names"))
    for index, victim in enumerate(names):
        if victim not in known:
            expected = "the name of a domain of the cluster or of a workload"
            table.report.wrong(table.at("victims", index), expected, shown(victim), nearest(victim, known))
    if aim is Aim.MACHINE and names:
        table.report.wrong(table.at("victims"), "no victims: this fault is the machine's", shown(names[0]))
    if aim in (Aim.DOMAINS, Aim.SPARED) and not names:
        table.report.wrong(table.at("victims"), "at least one name", "nothing")
    return names


def _span(table: Table, key: str, default: tuple[int, int], least: int, most: int) -> tuple[int, int]:
    """A number, or [least, most]."""
    value = table.take(key)
    if value is None:
        return default
    pair = [each for each in (value if isinstance(value, list) else [value, value]) if type(each) is int]
    expected = len(value) if isinstance(value, list) else 2
    if len(pair) == expected == 2 and least <= pair[0] <= pair[1] <= most:
        return pair[0], pair[1]
    found = f"[{', '.join(map(shown, value))}]" if expected == 2 and isinstance(value, list) else shown(value)
    table.report.wrong(table.at(key), f"a whole number from {least} to {most}, or [least, most]", found)
    return default


def _expectations(table: Table) -> Expectations:
    default = Expectations()
    expect = Expectations(
        recovered_ms=table.whole("recovered_ms", default.recovered_ms, 1, MS_MAX),
        progress=table.whole("progress", default.progress, 0, 100_000),
        conserved=table.flag("conserved", default=default.conserved),
        new_domain_every=table.whole("new_domain_every", default.new_domain_every, 0, FAULTS_MAX),
        durable=table.flag("durable", default=default.durable),
        failed=table.whole("failed", default.failed, 0, 1_000_000),
        bystander_p99_factor=table.whole("bystander_p99_factor", default.bystander_p99_factor, 0, 1000),
    )
    table.finish()
    return expect


