"""`hvd top -b` in each of its forms, against files: programs read them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cli import top
from hvd.toolstack.cluster import BadInput, DomainInfo, DomainState, NotRunning
from hvd.toolstack.cluster.process_times import ProcessTimes
from hvd.toolstack.monitor.rates import Rates, rates
from hvd.toolstack.monitor.sample import Sample
from hvd.toolstack.monitor.snapshot import Process, Snapshot

GOLDEN = Path(__file__).with_name("golden")
S = 10**9


def domain(domid: int, name: str, memory: int, vcpus: int, restarts: int) -> DomainInfo:
    fields = {"domid": domid, "name": name, "state": "running", "waits_for": (), "incarnation": restarts + 1,
              "pid": 100 + domid, "ready": True, "restarts": restarts, "memory": memory, "vcpus": vcpus,
              "driver_domain": False, "kernel": "hvd:idle", "last_death": "", "uptime_ns": 0,
              "devices": ()}  # fmt: skip
    return DomainInfo.from_wire(fields)


DOM0, GUEST = domain(0, "Domain-0", 64, 1, 0), domain(2, "guest", 128, 2, 3)
DRIVER = replace(domain(1, "driver", 64, 1, 0), state=DomainState.PAUSED, pid=None)


def snapshot(at_ns: int, used_ns: int, answered: int) -> Snapshot:
    """`used_ns`: of the guest; Domain-0 uses a two hundredth of it."""
    vbd = {"domid": 2, "kind": "vbd", "devid": 51712, "name": "xvda", "backend": 1, "state": 4, "port": 9,
           "ring_ref": 8, "pages": 1, "req_prod": answered + 17, "req_event": 0, "rsp_prod": answered,
           "rsp_event": 0}  # fmt: skip
    vif = vbd | {"kind": "vif", "devid": 0, "name": "vif0", "port": 10, "pages": 1, "req_prod": None, "rsp_prod": None}
    return Snapshot(
        at_ns,
        [
            (DOM0, Process(ProcessTimes(False, 0, 12.25), used_ns // 200, 9_100)),
            (DRIVER, Process(ProcessTimes(), 0, 0)),
            (GUEST, Process(ProcessTimes(True, 1, 1234.5), used_ns, 20_480)),
        ],
        [vbd, vif],
    )


def port(domid: int, number: int, remote_domid: int, remote_port: int) -> dict[str, Any]:
    return {"domid": domid, "port": number, "status": "interdomain", "remote_domid": remote_domid,
            "remote_port": remote_port, "virq": None}  # fmt: skip


PORTS = [port(1, 7, 2, 4), port(2, 4, 1, 7), port(0, 3, 2, 1), port(2, 1, 0, 3)]
SAMPLE = Sample(2.0, Counter({(1, 7): 500, (2, 4): 3}), {(2, 9): [4.25, 180.0]})
SEEN = rates(snapshot(0, 0, 0), snapshot(5 * S, 5 * S, 61_728), PORTS, SAMPLE)
"""What the screen and the batch are given, made as it is of a cluster."""


@pytest.fixture(autouse=True)
def looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look finds the same, at the same time."""

    class Still:
        def __init__(self, cluster: object) -> None: ...
        def look(self, delay_s: float) -> Rates:
            return SEEN

    class Attached:
        def __enter__(self) -> None: ...
        def __exit__(self, *raised: object) -> None: ...

    monkeypatch.setattr(top, "Watcher", Still)
    monkeypatch.setattr("hvd.toolstack.cluster.Cluster.attach", Attached)
    monkeypatch.setattr("hvd.toolstack.cli.top.time.time", lambda: 1_800_000_000.5)


@pytest.mark.parametrize(("as_csv", "golden"), [(False, "top.txt"), (True, "top.csv")])
def test_two_looks_in_batch(as_csv: bool, golden: str, capsys: pytest.CaptureFixture[str]) -> None:
    top.top(batch=True, iterations=2, delay_s=1.0, as_csv=as_csv, as_json=False)
    assert capsys.readouterr().out == (GOLDEN / golden).read_text()


def test_two_looks_in_json_are_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    top.top(batch=True, iterations=2, delay_s=1.0, as_csv=False, as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [json.loads((GOLDEN / "top.json").read_text())] * 2


def test_without_a_terminal_there_is_no_screen() -> None:
    with pytest.raises(BadInput, match="needs a terminal: use `hvd top -b`"):
        top.top(batch=False, iterations=None, delay_s=1.0, as_csv=False, as_json=False)


def test_the_head_of_a_csv_is_printed_when_there_is_a_cluster_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HVD_RUN_DIR", str(tmp_path / "none"))
    with pytest.raises(NotRunning):
        top.top(batch=True, iterations=1, delay_s=1.0, as_csv=True, as_json=False)
    assert capsys.readouterr().out == ""
