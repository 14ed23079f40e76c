"""Networks of a cluster that runs: who joins one later is under its rules, whoever else is there, and whoever dies."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from hvd.toolstack.cli import change, networks, reconfigure
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config.problems import ConfigError
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from tests.process.stations import STATION, SWITCH
from tests.waiting import wait_for

CLUSTER = SWITCH + '''
[[network]]
name = "cabin"
backend = "net"
mtu = 1400
rules = ["deny from=web to=ivi"]

[[network]]
name = "lan"

[[domain]]
name = "first"
kernel = "station.py"
args = ["answers"]
vif = ["bridge=cabin"]

[[domain]]
name = "ivi"
kernel = "station.py"
args = ["asks"]

[[domain]]
name = "web"
kernel = "station.py"
args = ["answers"]
'''
XL_CFG = """
name = "other"
kernel = "station.py"
args = ["answers"]
on_crash = "restart"
vif = ["bridge=cabin,mac=00:16:3e:00:00:07"]
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One in whose network with a rule there is no vif any more."""
    (tmp_path / "station.py").write_text(STATION)
    (tmp_path / "c.toml").write_text(CLUSTER)
    monkeypatch.setenv("HVD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    with Cluster.load("c.toml", run_dir=tmp_path / "run") as running:
        running.domain("first").destroy()
        yield running


def kill_broker(cluster: Cluster) -> None:
    pid = cluster.info()["broker_pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != pid, "another broker")


def kill_driver(cluster: Cluster) -> None:
    cluster.domain("net").kill()
    cluster.domain("net").wait_ready()


def answers(cluster: Cluster, mac: str) -> int:
    return cluster.domain("ivi").console_log().count(f"by {mac}")


def create(file: str) -> None:
    change.create(Path(file), {}, [], paused=False, wait=True, deadline_s=60, require=None, quiet=True, as_json=False)


def test_who_joins_an_empty_network_is_under_its_rules_and_stays_so_whoever_dies(cluster: Cluster, tmp_path) -> None:
    kill_broker(cluster)
    reconfigure.network_attach("ivi", ["bridge=cabin"], as_json=False)
    reconfigure.network_attach("web", ["bridge=cabin", "mac=00:16:3e:00:00:08"], as_json=False)
    kill_broker(cluster)
    (tmp_path / "other.cfg").write_text(XL_CFG)
    create("other.cfg")
    for death in (lambda _: None, kill_driver, kill_broker, kill_driver, lambda _: cluster.domain("web").kill()):
        death(cluster)
        cluster.domain("web").wait_ready()
        before = answers(cluster, "00:16:3e:00:00:07")
        wait_for(lambda before=before: answers(cluster, "00:16:3e:00:00:07") >= before + 5)  # type: ignore[misc]
    assert answers(cluster, "00:16:3e:00:00:08") == 0
    assert cluster.call(m.StoreRead(0, f"/local/domain/{cluster.domain('ivi').domid}/device/vif/0/mtu")) == b"1400"


def test_a_vif_of_no_network_of_the_cluster_is_refused_and_the_networks_are_named(cluster: Cluster, tmp_path) -> None:
    there = r"expected a network of the cluster \(cabin, lan\), found \"cabn\"; did you mean \"cabin\""
    with pytest.raises(ConfigError, match=there):
        reconfigure.network_attach("ivi", ["bridge=cabn"], as_json=False)
    with pytest.raises(ConfigError, match="expected a network of the cluster"):
        reconfigure.network_attach("ivi", [], as_json=False)
    (tmp_path / "other.cfg").write_text(XL_CFG.replace("cabin", "cabn"))
    (tmp_path / "other.toml").write_text("[[domain]]\n" + XL_CFG.replace("cabin", "cabn"))
    for file in ("other.cfg", "other.toml"):
        with pytest.raises(ConfigError, match=there):
            create(file)
    with pytest.raises(HypercallError, match="which is none; there are: cabin, lan"):
        cluster.domain("ivi").attach(m.DeviceConfig("vif", 7, "net", {"bridge": "cabn"}))
    assert not cluster.domain("ivi").info().devices and "other" not in {each.name for each in cluster.domains()}


def test_a_file_that_is_added_to_a_cluster_brings_no_networks(cluster: Cluster, tmp_path) -> None:
    (tmp_path / "other.toml").write_text('[[network]]\nname = "own"\nbackend = "net"\n[[domain]]\n' + XL_CFG)
    with pytest.raises(ConfigError, match="networks are made by `hvd up`"):
        create("other.toml")


def test_the_networks_are_shown_with_those_who_are_in_them(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    reconfigure.network_attach("ivi", ["bridge=cabin.7:9", "rate=10Mb/s"], as_json=False)
    reconfigure.network_link("ivi", "0", "down", as_json=False)
    capsys.readouterr()
    networks.networks([], as_json=True)
    cabin, lan = json.loads(capsys.readouterr().out)
    (vif,) = cabin.pop("vifs")
    assert cabin == {"name": "cabin", "backend": "net", "mtu": 1400, "antispoof": True, "default": "allow",
                     "rules": ["deny from=web to=ivi"], "uplink": None, "vlans": [7, 9]}  # fmt: skip
    assert [vif[key] for key in ("name", "devid", "vlan", "trunk", "link", "rate", "mtu")] == [
        "ivi", 0, 7, [9], "down", [62_500, 50_000], 1400]  # fmt: skip
    assert (lan["name"], lan["backend"], lan["vifs"]) == ("lan", "Domain-0", [])


def test_a_cluster_that_a_program_describes_has_networks_as_a_file_has(tmp_path: Path) -> None:
    (tmp_path / "station.py").write_text(STATION)

    def station(name: str, role: str, mac: str) -> m.DomainConfig:
        vif = m.DeviceConfig("vif", 0, "net", {"mac": mac, "bridge": "cabin"}, {"mac": mac})
        return m.DomainConfig(name, str(tmp_path / "station.py"), args=[role], devices=[vif])

    cabin = m.NetworkConfig("cabin", "net", 1400, rules=["deny from=web to=ivi"])
    domains = [
        m.DomainConfig("net", "hvd:driver_domain", driver_domain=True),
        station("ivi", "asks", "00:16:3e:00:00:03"), station("web", "answers", "00:16:3e:00:00:08"),
        station("other", "answers", "00:16:3e:00:00:07"),
    ]  # fmt: skip
    with Cluster.build(domains, run_dir=tmp_path / "run", networks=[cabin]) as running:
        wait_for(lambda: answers(running, "00:16:3e:00:00:07") >= 20, "the other's answers")
        assert answers(running, "00:16:3e:00:00:08") == 0
        assert running.network("cabin")["rules"] == cabin.rules
