"""Vifs in a running cluster: packets between guests, rules, rates, vifs that come and go, driver domains that die."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hvd.toolstack.cli import inspect, reconfigure
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config.problems import ConfigError
from hvd.transport.errors import HvdError
from tests.process.stations import STATION, SWITCH

CLUSTER = SWITCH + '''
[[network]]
name = "cabin"
backend = "net"
{network}

[[network]]
name = "other"
backend = "net"

[[domain]]
name = "web"
kernel = "station.py"
args = ["answers"]
vif = ["bridge=cabin,mac=00:16:3e:00:00:02"]

[[domain]]
name = "ivi"
kernel = "station.py"
args = ["asks"]
after = ["web"]
vif = ["bridge=cabin,mac=00:16:3e:00:00:01"]
'''


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "station.py").write_text(STATION)
    (tmp_path / "c.toml").write_text(CLUSTER.format(network=getattr(request, "param", "")))
    monkeypatch.setenv("HVD_RUN_DIR", str(tmp_path / "run"))
    with Cluster.load(tmp_path / "c.toml", run_dir=tmp_path / "run") as running:
        running.wait_ready()
        yield running


def count(cluster: Cluster, text: str) -> int:
    return cluster.domain("ivi").console_log().count(text)


def wait_for(cluster: Cluster, text: str, times: int = 1) -> None:
    """Until the asking guest has written this so often more."""
    until, before = time.monotonic() + 30, count(cluster, text)
    while count(cluster, text) < before + times:
        assert time.monotonic() < until, cluster.domain("ivi").console_log()[-500:]
        time.sleep(0.005)


ANSWERED = "answered vif0 by 00:16:3e:00:00:02"


def test_a_driver_domain_is_killed_again_and_again_and_packets_go_on(cluster):
    wait_for(cluster, ANSWERED, 3)
    for _ in range(5):
        cluster.domain("net").kill()
        cluster.domain("net").wait_ready()
        wait_for(cluster, ANSWERED, 3)
    assert cluster.domain("ivi").incarnation == cluster.domain("web").incarnation == 1


def test_either_guest_is_killed_and_packets_go_on(cluster):
    wait_for(cluster, ANSWERED)
    for victim in ("web", "ivi"):
        cluster.domain(victim).kill()
        cluster.domain(victim).wait_ready()
        wait_for(cluster, ANSWERED, 3)


@pytest.mark.parametrize("cluster", ['rules = ["deny from=web to=ivi"]'], indirect=True)
def test_what_a_rule_forbids_does_not_arrive_and_neither_does_it_by_a_vif_plugged_in_later(cluster, capsys):
    web = cluster.domain("web")
    reconfigure.network_attach("web", ["bridge=cabin", "mac=00:16:3e:00:00:03"], as_json=False)
    reconfigure.network_attach("ivi", ["bridge=other"], as_json=False)
    reconfigure.network_attach("web", ["bridge=other", "mac=00:16:3e:00:00:04"], as_json=False)
    wait_for(cluster, "answered vif1 by 00:16:3e:00:00:04", 3)  # of another network: nothing is forbidden there
    assert count(cluster, "answered vif0") == 0
    assert [device["devid"] for device in web.info().devices] == [0, 1, 2]


def test_vifs_come_and_go_by_number_and_by_address_and_leave_nothing(cluster, capsys):
    wait_for(cluster, ANSWERED)
    reconfigure.network_attach("ivi", ["bridge=cabin", "rate=10Mb/s"], as_json=False)
    wait_for(cluster, "answered vif1 by 00:16:3e:00:00:02", 3)
    inspect.network_list(["ivi"], as_json=False)
    out = capsys.readouterr().out
    mac = out.splitlines()[-1].split()[2]
    assert "/local/domain/1/backend/vif/3/1" in out and mac.startswith("00:16:3e:")
    with pytest.raises(HvdError, match="has the address"):
        reconfigure.network_attach("web", ["bridge=cabin", f"mac={mac}"], as_json=False)
    facts = ("ports", "granted_pages", "mappings", "extents")
    with_it = {name: cluster.info()[name] for name in facts}
    reconfigure.network_detach("ivi", mac, force=False, as_json=False)
    assert [device["devid"] for device in cluster.domain("ivi").info().devices] == [0]
    reconfigure.network_attach("ivi", ["bridge=cabin"], as_json=False)
    wait_for(cluster, "answered vif1 by 00:16:3e:00:00:02", 3)
    assert {name: cluster.info()[name] for name in facts} == with_it
    with pytest.raises(ConfigError, match=r"which has 0 .*, 1 .*, found \"7\""):
        reconfigure.network_link("ivi", "7", "down", as_json=False)
    reconfigure.network_detach("ivi", "1", force=True, as_json=False)
    wait_for(cluster, ANSWERED, 3)


def test_a_cable_that_is_out_carries_nothing_until_it_is_in_and_stays_out_over_a_death(cluster):
    wait_for(cluster, ANSWERED)
    for change in (lambda: None, lambda: cluster.domain("net").kill()):
        reconfigure.network_link("web", "0", "down", as_json=False)
        change()
        cluster.domain("net").wait_ready()
        reconfigure.network_attach("ivi", ["bridge=other"], as_json=False)
        reconfigure.network_attach("web", ["bridge=other"], as_json=False)
        wait_for(cluster, "answered vif1", 2)
        before = count(cluster, ANSWERED)
        wait_for(cluster, "answered vif1", 3)
        assert count(cluster, ANSWERED) == before
        for name in ("ivi", "web"):
            reconfigure.network_detach(name, "1", force=False, as_json=False)
        reconfigure.network_link("web", "00:16:3e:00:00:02", "up", as_json=False)
        wait_for(cluster, ANSWERED, 2)
