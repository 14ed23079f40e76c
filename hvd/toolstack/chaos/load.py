"""The load of a run: the domains that a plan's workloads are, and the checker behind each."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hvd.toolstack.chaos.plan import PROGRAM, Plan, Workload
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.config import ClusterConfig
from hvd.toolstack.faults.bank import StoreChecker, check_balances, open_bank
from hvd.toolstack.faults.checker import Checker
from hvd.toolstack.faults.console_checker import ConsoleChecker
from hvd.toolstack.faults.durability import Cuts, Durability, judge
from hvd.toolstack.faults.history import HistoryChecker, Verdict
from hvd.transport.history import unpack_all
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy, StoreRead, StoreWrite
from hvd.transport.write_log import records
from hvd.transport.xenbus_state import XenbusState

BANK = "/chaos/bank"
BLOCKS = 256
IMAGE_BYTES = BLOCKS * 4096
DEVID = 51712
CUTS = Cuts(exhaustive_max=3, samples=3, prefixes_max=100)
"""Of each disk, at the end of a run; the tests cut at every prefix."""
FOREVER = RestartPolicy(limit=0)
AnyChecker = Checker | ConsoleChecker | StoreChecker | HistoryChecker


@dataclass(slots=True)
class Running:
    """One workload that runs."""

    plan: Workload
    domain: Domain
    checker: AnyChecker
    bystander: bool

    @property
    def verdict(self) -> Verdict:
        """As of the last look at its history."""
        return self.checker.verdict


class Load:
    """All workloads of one run. Files are in a directory of the run's own."""

    def __init__(self, plan: Plan, seed: int, directory: Path) -> None:
        self._plan = plan
        self._seed = seed
        self._directory = directory
        self.running: list[Running] = []

    def prepared(self, config: ClusterConfig) -> ClusterConfig:
        """The cluster with what the load needs of it: backends that may write logs, and no end to restarts."""
        logs: dict[str, list[str]] = {}
        for workload in self._disks():
            self._log(workload).touch()
            logs.setdefault(workload.backend, []).append(f"{self._log(workload)}:w")
        programs = {workload.name: workload for workload in self._plan.workloads if workload.kind == PROGRAM}
        domains = tuple(
            replace(domain, paths=[*domain.paths, *logs.get(domain.name, ())], restart=replace(domain.restart, limit=0))
            if domain.name not in programs else self._with_history(domain, programs[domain.name])
            for domain in config.domains
        )  # fmt: skip
        dom0 = replace(config.dom0, paths=[*config.dom0.paths, *logs.get(config.dom0.name, ())])
        return replace(config, domains=domains, dom0=dom0)

    def start(self, cluster: Cluster, deadline_s: float) -> None:
        """Create the domains and wait until they are at work."""
        domains = {
            workload.name: cluster.domain(workload.name) if workload.kind == PROGRAM
            else cluster.create(self._domain(workload))
            for workload in self._plan.workloads
        }  # fmt: skip
        tellers = [domains[workload.name] for workload in self._plan.workloads if workload.kind == "store"]
        if tellers:
            open_bank(cluster, BANK, tellers)
        for workload in self._plan.workloads:
            domain = domains[workload.name]
            bystander = workload.name in self._plan.bystanders
            self.running.append(Running(workload, domain, self._checker(cluster, workload, domain), bystander))
        cluster.wait_ready(deadline_s, list(domains.values()))

    def follow(self) -> None:
        """Take in what they have done since the last call."""
        for each in self.running:
            each.checker.follow()

    def check(self) -> list[str]:
        """What is wrong with what they were told is done: empty when nothing acknowledged is lost, or done twice."""
        return [f"{each.plan.name}: {'; '.join(each.verdict.lines()[1:])}" for each in self.running
                if not each.checker.check().intact]  # fmt: skip

    def unreached(self, since: Sequence[int], progress: int) -> list[str]:
        """Those that have not completed so many operations more than these counts of `done`."""
        return [each.plan.name for each, before in zip(self.running, since, strict=True)
                if each.verdict.ok < before + progress]  # fmt: skip

    def done(self) -> list[int]:
        """Operations of each that are ok."""
        return [each.verdict.ok for each in self.running]

    def finish(self, cluster: Cluster, deadline_s: float) -> list[str]:
        """Tell them to end, wait until they have, and say what is wrong: whatever was not answered, too."""
        for each in self.running:
            cluster.call(StoreWrite(0, f"/local/domain/{each.domain.domid}/data/finish", b"1"))
        for each in self.running:
            each.domain.wait_until(lambda info: info.state == "preserved", "to come to its end", deadline_s)
        wrong = self.check()
        for each in self.running:
            left = each.verdict.unknown - each.verdict.orphaned
            if left:
                wrong.append(f"{each.plan.name}: {left} operations were never answered, and their domain lived")
        tellers = [each.checker for each in self.running if isinstance(each.checker, StoreChecker)]
        return wrong + (check_balances(cluster, BANK, tellers) if tellers else [])

    def failed(self, allowed: int) -> list[str]:
        """Those with more operations that ended with an error than this; no bystander may have any."""
        return [
            f"{each.plan.name}: {each.verdict.failed} operations failed{' (a bystander)' * each.bystander}"
            for each in self.running
            if each.verdict.failed > (0 if each.bystander else allowed)
        ]

    def durability(self) -> dict[str, Durability]:
        """What power cuts would have left of each disk."""
        found = {}
        for workload in self._disks():
            log = list(records(self._log(workload).read_bytes()))
            history = list(unpack_all(self._acks(workload).read_bytes()))
            found[workload.name] = judge(bytes(IMAGE_BYTES), log, history, self._seed, CUTS)
        return found

    def connected(self, cluster: Cluster, each: Running) -> bool:
        """Whether both ends of its disk say so."""
        backend = next(info.domid for info in cluster.infos().values() if info.name == each.plan.backend)
        paths = (f"{each.domain.domid}/device/vbd/{DEVID}", f"{backend}/backend/vbd/{each.domain.domid}/{DEVID}")
        return all(_state(cluster, f"/local/domain/{path}/state") == XenbusState.CONNECTED for path in paths)

    def served_by(self, victims: Sequence[str]) -> list[Running]:
        """Workloads that one of these is, or serves."""
        hit = set(victims)
        return [each for each in self.running if each.plan.name in hit or self._plan.servers(each.plan) & hit]

    # ---- what they are made of --------------------------------------------------------------------------------------

    def _disks(self) -> list[Workload]:
        return [workload for workload in self._plan.workloads if workload.kind == "disk"]

    def _log(self, workload: Workload) -> Path:
        return self._directory / f"{workload.name}.log"

    def _acks(self, workload: Workload) -> Path:
        return self._directory / f"{workload.name}.acks"

    def _image(self, workload: Workload) -> Path:
        return self._directory / f"{workload.name}.img"

    def _domain(self, workload: Workload) -> DomainConfig:
        acks = self._acks(workload)
        acks.touch()
        args, devices = [f"acks={acks}", f"seed={self._seed}", f"pace_ms={workload.pace_ms}"], []
        match workload.kind:
            case "disk":
                args += [f"blocks={BLOCKS}", "largest=32", "depth=4", "flush_every=16"]
                devices = [self._device(workload)]
            case "store":
                args += [f"bank={BANK}"]
        return DomainConfig(
            workload.name, f"hvd:{workload.kind}_exerciser", args=args, devices=devices, paths=[f"{acks}:w"],
            on_poweroff="preserve", restart=FOREVER,
        )  # fmt: skip

    def _with_history(self, domain: DomainConfig, workload: Workload) -> DomainConfig:
        """A domain of the cluster's file whose program writes a history where it is told to."""
        acks = self._acks(workload)
        acks.touch()
        return replace(
            domain, args=[*domain.args, f"acks={acks}"], paths=[*domain.paths, f"{acks}:w"], on_poweroff="preserve",
            restart=replace(domain.restart, limit=0),
        )  # fmt: skip

    def _device(self, workload: Workload) -> DeviceConfig:
        image = self._image(workload)
        image.touch()
        os.truncate(image, IMAGE_BYTES)
        keys = {"params": str(image), "type": "file", "mode": "w", "dev": "xvda", "device-type": "disk"}
        if self._plan.expect.durable:
            keys["hvd-write-log"] = str(self._log(workload))
        return DeviceConfig("vbd", DEVID, workload.backend, keys, {"virtual-device": str(DEVID), "device-type": "disk"})

    def _checker(self, cluster: Cluster, workload: Workload, domain: Domain) -> AnyChecker:
        acks = str(self._acks(workload))
        match workload.kind:
            case "disk":
                return Checker(str(self._image(workload)), acks, self._seed)
            case "console":
                return ConsoleChecker(domain.log_path(), acks, self._seed)
            case "store":
                return StoreChecker(cluster, BANK, domain, acks)
            case _:
                return HistoryChecker(acks)


def _state(cluster: Cluster, path: str) -> int:
    """Of a device's end; 0 while there is none, as between two lives of it."""
    try:
        return int(cluster.call(StoreRead(0, path)))
    except HypercallError as error:
        if error.errno != errno.ENOENT:
            raise
        return XenbusState.UNKNOWN
