"""How networks are shown: a line for each, or one with its rules and vifs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

import hvd
from hvd.toolstack.cli import networks as shown
from hvd.toolstack.config.problems import ConfigError

CABIN = {"name": "cabin", "backend": "net", "mtu": 1500, "antispoof": True, "default": "deny",
         "rules": ["allow ether=arp", "allow from=ivi to=web proto=tcp"], "uplink": "tap0"}  # fmt: skip
LAN = {"name": "lan", "backend": "Domain-0", "mtu": 9000, "antispoof": False, "default": "allow", "rules": [],
       "uplink": None}  # fmt: skip


def vif(name: str, devid: int, network: str, backend: str, **more: Any) -> dict[str, Any]:
    return {"domid": 3, "name": name, "devid": devid, "network": network, "backend": backend,
            "mac": f"00:16:3e:00:00:0{devid}", "mtu": 1500, "ip": [], "rate": None, "vlan": None, "trunk": [],
            "antispoof": True, "link": "up", "state": "connected", **more}  # fmt: skip


class Cluster:
    """What is asked of one."""

    def __init__(self, networks: list[dict[str, Any]], vifs: list[dict[str, Any]]) -> None:
        self._networks = {network["name"]: network for network in networks}
        self._vifs = vifs

    def networks(self) -> dict[str, str]:
        return {name: network["backend"] for name, network in self._networks.items()}

    def network(self, name: str) -> dict[str, Any]:
        return self._networks[name]

    def vifs(self) -> list[dict[str, Any]]:
        return self._vifs


VIFS = [
    vif("ivi", 0, "cabin", "net", rate=[62_500, 50_000], ip=["10.0.0.3", "fd00::3"], trunk=[20, 7]),
    vif("web", 1, "cabin", "net", vlan=7, link="down", antispoof=False),
    vif("web", 2, "other", "net", state=None),
]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch):
    def run(cluster: Cluster) -> None:
        @contextmanager
        def attach():
            yield cluster

        monkeypatch.setattr(hvd.Cluster, "attach", attach)

    run(Cluster([CABIN, LAN], VIFS))
    return run


def test_each_network_is_a_line(running, capsys):
    shown.networks([], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "Name   Switch    MTU   Default  Rules  VLANs  Uplink  Vifs",
        "cabin  net       1500  deny         2  7, 20  tap0    ivi/0, web/1",
        "lan    Domain-0  9000  allow        0  -      -       -",
    ]


def test_one_by_its_name_is_told_with_rules_and_vifs(running, capsys):
    shown.networks(["cabin"], as_json=False)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "cabin: in the switch of net, MTU 1500, antispoof on, uplink tap0, VLANs 7, 20",
        "allow ether=arp",
        "allow from=ivi to=web proto=tcp",
        "deny what no rule fits",
        "Domain Vif MAC MTU VLAN Tagged Rate Addresses Guard Link State",
        "ivi 0 00:16:3e:00:00:00 1500 - 20, 7 10Mb/s 10.0.0.3, fd00::3 on up connected",
        "web 1 00:16:3e:00:00:01 1500 7 - - - off down connected",
    ]


def test_without_networks_each_bridge_of_a_switch_is_one(running, capsys):
    running(Cluster([], VIFS))
    shown.networks([], as_json=False)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]] == [
        "cabin net - allow 0 7, 20 - ivi/0, web/1", "other net - allow 0 - - web/2"]  # fmt: skip


def test_a_name_that_is_none_is_told_with_those_there_are(running):
    with pytest.raises(ConfigError, match=r"a network of the cluster \(cabin, lan\), found \"cabn\"; did you mean"):
        shown.networks(["cabn"], as_json=False)


@pytest.mark.parametrize(
    ("given", "text"),
    [(None, "-"), ([1, 0], "-"), ([62_500, 50_000], "10Mb/s"), ([1, 1_000_000], "8b/s"), ([10**9, 8_000_000], "1Gb/s")],
)
def test_a_rate_is_told_in_bits_a_second(given, text):
    assert shown.rate(given) == text
