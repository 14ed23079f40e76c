"""Any bytes as a plan of `hvd chaos`, over a cluster that there is: a plan of which every fault can be carried out, or
problems that name their lines."""

from __future__ import annotations

import os
import tomllib

from hvd.toolstack.chaos.plan import FAULTS_MAX, MS_MAX, load_plan
from hvd.toolstack.config.problems import ConfigError
from hvd.toolstack.faults.registry import FAULTS
from tests.fuzz.python.file_in_memory import FileInMemory
from tests.fuzz.python.problems_named import judge_problems
from tests.fuzz.targets import ROOT

FILE = FileInMemory("plan.toml")
CLUSTER, CLUSTER_FILE = b"$CLUSTER", ROOT / "examples" / "chaos" / "two-disks.toml"


def play(data: bytes) -> None:
    data = data.replace(CLUSTER, os.fsencode(CLUSTER_FILE))
    if _names_another_cluster(data):  # which is read too, and might be a terminal
        return
    try:
        plan = load_plan(FILE.hold(data))
    except ConfigError as error:
        judge_problems(error, data)
        return
    loads = {load.name for load in plan.workloads}
    assert len(loads) == len(plan.workloads) and {*plan.bystanders} <= loads
    assert 1 <= plan.steps <= FAULTS_MAX and 1 <= plan.burst[0] <= plan.burst[1] and plan.faults
    names = loads | {"Domain-0", *(domain.name for domain in plan.cluster.domains)}
    for choice in plan.faults:
        assert {*choice.victims} <= names and choice.weight >= 1
        assert choice.for_ms is None or 1 <= choice.for_ms[0] <= choice.for_ms[1] <= MS_MAX
        assert [name for name, _ in choice.parameters] == [each.name for each in FAULTS[choice.name].parameters]


def _names_another_cluster(data: bytes) -> bool:
    try:
        scenario = tomllib.loads(data.decode("utf-8-sig")).get("scenario")
    except (ValueError, RecursionError):
        return False
    cluster = scenario.get("cluster", "") if isinstance(scenario, dict) else ""
    return isinstance(cluster, str) and cluster not in ("", str(CLUSTER_FILE))
