"""The tables of xl, against files written from xl(1) and what xl 4.17 prints."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hvd.toolstack.cli import xl_tables
from hvd.toolstack.cli.xl_json import domain_json
from hvd.toolstack.cli.xl_tables import ListColumns
from hvd.toolstack.cluster import DomainInfo, DomainState
from hvd.toolstack.cluster.process_times import ProcessTimes
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.messages import DeviceConfig, DomainConfig

GOLDEN = Path(__file__).with_name("golden")


def domain(domid: int, name: str, **fields: object) -> DomainInfo:
    usual: dict[str, object] = {
        "domid": DomId(domid), "name": name, "state": DomainState.RUNNING, "waits_for": (), "restarts": 0,
        "incarnation": Incarnation(1), "pid": 100 + domid, "ready": True, "memory": 64, "vcpus": 1,
        "driver_domain": False, "kernel": "hvd:idle", "last_death": "", "uptime_ns": 0, "devices": (),
        "uuid": f"{domid:08}-0000-4000-8000-000000000000",
    }  # fmt: skip
    return DomainInfo(**(usual | fields))  # type: ignore[arg-type]


S = 10**9
ZERO = domain(0, "Domain-0", memory=750, vcpus=4, seclabel="dom0_t", uptime_ns=90_061 * S)
WIN = domain(1, "win", memory=1019, state=DomainState.PAUSED, cpus=(1,), uptime_ns=200_000 * S)
LINUX = domain(2, "linux", memory=2048, vcpus=2, cpus=(0, 1, 2, 5), uptime_ns=3_725 * S)
BROKEN = domain(12, "broken", state=DomainState.PRESERVED, pid=None)
ROWS = [
    (ZERO, ProcessTimes(True, 0, 11794.3)),
    (WIN, ProcessTimes(False, 1, 0.26)),
    (LINUX, ProcessTimes(False, 3, 5624.2)),
    (BROKEN, ProcessTimes()),
]


def golden(name: str) -> list[str]:
    return (GOLDEN / f"{name}.txt").read_text().splitlines()


def test_list():
    assert xl_tables.list_lines(ROWS, ListColumns()) == golden("list")


def test_list_verbose():
    assert xl_tables.list_lines(ROWS, ListColumns(verbose=True)) == golden("list-v")


def test_list_with_labels():
    assert xl_tables.list_lines(ROWS, ListColumns(context=True)) == golden("list-Z")


def test_list_with_pools_and_nodes():
    assert xl_tables.list_lines(ROWS, ListColumns(cpupool=True, numa=True)) == golden("list-cn")


def test_vcpu_list():
    assert xl_tables.vcpu_lines(ROWS) == golden("vcpu-list")


def test_vm_list():
    assert xl_tables.vm_lines(info for info, _ in ROWS) == golden("vm-list")


def test_list_long():
    linux = replace(
        LINUX, seclabel="guest_t", memory_static_max_kib=2097152, memory_target_kib=1048576, cpus=(0, 5),
    )  # fmt: skip
    disk = DeviceConfig("vbd", 51712, "storage", {"params": "/srv/linux.img", "dev": "xvda", "mode": "r"})
    config = DomainConfig(
        "linux", "/srv/linux.py", args=["root=/dev/xvda", "ro"], vcpus=2, cpus=[0, 5], driver_domain=True,
        devices=[disk], on_crash="coredump-restart", on_watchdog="restart",
    )  # fmt: skip
    expected = json.loads((GOLDEN / "list-l.json").read_text())
    told = json.loads(json.dumps(domain_json(linux, config)))
    assert (told, list(told["config"])) == (expected, list(expected["config"]))


def test_uptime():
    noon = time.strptime("2026-11-29 12:00:00", "%Y-%m-%d %H:%M:%S")
    infos = [info for info, _ in ROWS]
    assert xl_tables.uptime_lines(infos, short=False, now=noon) == golden("uptime")
    assert xl_tables.uptime_lines(infos, short=True, now=noon) == golden("uptime-s")


def test_block_list():
    connected = xl_tables.Disk(51712, 1, 2, 4, 15, 768, "/local/domain/1/backend/vbd/2/51712")
    waiting = xl_tables.Disk(51728, 0, 2, 1, -1, -1, "/local/domain/0/backend/vbd/2/51728")
    assert xl_tables.block_lines([connected, waiting]) == golden("block-list")


def test_network_list():
    connected = xl_tables.Nic(0, 1, "00:16:3e:00:00:01", 4, 15, 768, 769, "/local/domain/1/backend/vif/2/0")
    waiting = xl_tables.Nic(1, 0, "00:16:3e:00:00:02", 1, -1, -1, -1, "/local/domain/0/backend/vif/2/1")
    assert xl_tables.network_lines([connected, waiting]) == golden("network-list")


@pytest.mark.parametrize(("cpus", "text"), [((), "all"), ((0,), "0"), ((0, 1, 2, 5, 7, 8), "0-2,5,7-8")])
def test_cpus_are_written_as_ranges(cpus, text):
    assert xl_tables.cpus(cpus) == text
