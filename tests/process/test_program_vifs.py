"""Vifs that come and go while a program runs: interfaces of its, as they would be from its start on.

Run as root, all of it is run once more as nobody.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cli import reconfigure
from hvd.toolstack.cluster import Domain, DomainState
from hvd.toolstack.cluster.errors import ClusterError, DeviceRefused
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.limits import INTERFACES_MAX
from hvd.transport.protocols.net import INTERFACE_KEY
from tests.nobody import passes_as_nobody_with_tap
from tests.process.lans import GET, MARKS, WEB, Lan, lan_in, needs
from tests.waiting import wait_for

pytestmark = [*MARKS, needs("ip")]

CONTENT = random.Random(9).randbytes(3 << 20)
VIF = "mac=00:16:3e:00:00:09,mtu=1400,ip=10.0.0.3 fd00::3,gateway=10.0.0.1"
SHOWS = "ip -o link show eth1; ip -o addr show eth1 scope global; ip -o route show default;"
TURNS = """
    until ip -o route show default | grep -q eth1; do sleep 0.02; done
    {do}
    echo came
    while ip link show eth1 >/dev/null 2>&1; do sleep 0.02; done
    echo went
"""
"""What is done whenever an eth1 with a default route has come."""


def turns(do: str, count: int = 1) -> str:
    return "".join(TURNS.format(do=do) for _ in range(count)) + "exec sleep 1000"


@pytest.fixture
def lan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    yield from lan_in(tmp_path, monkeypatch)


def attach(name: str, vif: str = VIF) -> None:
    reconfigure.network_attach(name, [vif], as_json=False)


def detach(name: str, devid: int = 1, *, force: bool = False) -> None:
    reconfigure.network_detach(name, str(devid), force=force, as_json=False)


def says(domain: Domain, text: str, times: int = 1) -> None:
    wait_for(lambda: domain.console_log().count(text) >= times, f"{text} {times} times in {domain.console_log()!r}")


def vifs(domain: Domain) -> list[int]:
    return [device["devid"] for device in domain.info().devices]


def interface(cluster: Cluster, domain: Domain, devid: int = 1) -> bytes:
    try:
        found: bytes = cluster.call(m.StoreRead(0, f"/local/domain/{domain.domid}/device/vif/{devid}/{INTERFACE_KEY}"))
    except HypercallError:
        return b""
    return found


def counts(cluster: Cluster) -> dict[str, int]:
    facts = cluster.info()
    return {name: facts[name] for name in ("ports", "granted_pages", "mappings", "extents", "descriptors")}


@needs("curl")
def test_an_interface_comes_goes_and_comes_again_with_all_that_its_vif_says(lan: Lan) -> None:
    lan.file("srv/known", CONTENT)
    lan.add("web", WEB.format(directory=lan.directory / "srv"), "ip=10.0.0.2", paths=[lan.directory / "srv"])
    lan.add("one", turns(f"{SHOWS} {GET} http://10.0.0.2/known | sha256sum", 3), "ip=10.7.0.1", after="web")
    cluster = lan.start()
    one = cluster.domain("one")
    before = None
    for turn in (1, 2, 3):
        attach("one")
        says(one, "came", turn)
        detach("one", force=turn == 2)
        says(one, "went", turn)
        now = counts(cluster)
        before = before or now
        wait_for(lambda before=before: counts(cluster) == before, f"{before} again")  # type: ignore[misc]
    told = one.console_log()
    assert told.count("mtu 1400") == told.count("00:16:3e:00:00:09") == told.count(",UP,LOWER_UP") == 3
    assert re.findall(r"inet6? (\S+)", told) == ["10.0.0.3/24", "fd00::3/64"] * 3
    assert re.findall(r"default via (\S+) dev eth1", told) == ["10.0.0.1"] * 3
    assert told.count(hashlib.sha256(CONTENT).hexdigest()) == 3
    assert one.incarnation == 1 and vifs(one) == [0]


@needs("ping")
@pytest.mark.parametrize("force", [False, True])
def test_it_is_taken_away_while_packets_flow_both_ways(lan: Lan, force: bool) -> None:
    lan.add("there", "exec sleep 1000", "ip=10.0.0.2")
    flood = "ping -i 0.002 -s 1200 10.0.0.2 > /tmp/pings & until [ $(wc -l < /tmp/pings) -gt 50 ]; do sleep 0.02; done"
    lan.add("one", turns(flood, 2), "ip=10.7.0.1", after="there")
    cluster = lan.start()
    one = cluster.domain("one")
    for turn in (1, 2):
        attach("one")
        says(one, "came", turn)
        detach("one", force=force)
        says(one, "went", turn)
    assert one.state is DomainState.RUNNING and one.incarnation == 1


def test_a_program_that_was_killed_has_at_its_next_start_what_was_plugged_in(lan: Lan) -> None:
    lan.add("one", "ip -o addr show scope global; echo started; exec sleep 1000", "ip=10.7.0.1", on_crash="restart")
    cluster = lan.start()
    one = cluster.domain("one")
    attach("one")
    wait_for(lambda: interface(cluster, one) == b"eth1", "its interface")
    one.kill()
    one.wait_ready()
    says(one, "started", 2)
    second = one.console_log().split("started")[1]
    assert re.findall(r"(eth\d) +inet6? (\S+)", second) == [
        ("eth0", "10.7.0.1/24"), ("eth1", "10.0.0.3/24"), ("eth1", "fd00::3/64")]  # fmt: skip
    detach("one")
    attach("one")
    assert interface(cluster, one) == b"eth1"


def test_a_vif_that_was_plugged_in_while_its_switch_was_dead_comes_up_with_it(
    lan: Lan, capsys: pytest.CaptureFixture[str]
) -> None:
    lan.add("one", turns(SHOWS), "ip=10.7.0.1")
    cluster = lan.start()
    one, net = cluster.domain("one"), cluster.domain("net")
    net.set_config(replace(net.config(), on_crash="preserve"))
    os.kill(net.pid or 0, 9)
    net.wait_state(DomainState.PRESERVED)
    attach("one")
    told = capsys.readouterr()
    assert "attached vif 1 to one" in told.out
    assert "; it waits for net, which is preserved" in told.out
    assert not interface(cluster, one)
    net.reboot()
    says(one, "came")
    assert interface(cluster, one) == b"eth1"


@pytest.mark.parametrize(
    ("before", "vif", "told"),
    [
        ("", "ip=10.0.0.3,gateway=10.0.0.1", "eth1: File exists: it has that address, or a default route, already"),
        ("ip link set eth0 down; ip link set eth0 name eth1;", "", "eth1: Device or resource busy: it has an"),
    ],
)
def test_what_the_kernel_refuses_is_told_and_the_vif_is_not_there(lan: Lan, before: str, vif: str, told: str) -> None:
    lan.add("one", f"{before} echo did; exec sleep 1000", "ip=10.7.0.1,gateway=10.7.0.9")
    cluster = lan.start()
    one = cluster.domain("one")
    says(one, "did")
    pattern = rf"one \(domid \d+\) can have no interface of vif 1, which was taken away again: {told}"
    for _ in range(INTERFACES_MAX + 1):  # no TAP is lost
        with pytest.raises(ClusterError, match=pattern):
            attach("one", vif)
    assert vifs(one) == [0] and one.state is DomainState.RUNNING


@pytest.mark.parametrize(
    ("back", "front", "told"),
    [
        ({}, {"mac": "x"}, "'x' is no MAC address"),
        ({"rate": "much"}, {}, "vif 1 of domain 2: rate is 'much'"),
    ],
)
def test_an_end_that_can_make_no_sense_of_its_keys_is_told(
    lan: Lan, back: dict[str, str], front: dict[str, str], told: str
) -> None:
    lan.add("one", "exec sleep 1000", "ip=10.7.0.1")
    cluster = lan.start()
    one = cluster.domain("one")
    device = m.DeviceConfig("vif", 1, "net", {"bridge": "lan", **back}, front)
    for _ in range(3):
        with pytest.raises(DeviceRefused, match=re.escape(told)):
            one.attach(device)
    attach("one")
    assert interface(cluster, one) == b"eth1"


def test_a_program_has_so_many_vifs_and_no_more(lan: Lan) -> None:
    lan.add("one", "exec sleep 1000", "ip=10.7.0.1")
    cluster = lan.start()
    one = cluster.domain("one")
    for _ in range(1, INTERFACES_MAX):
        attach("one", "")
    text = f"domain one is a program and has {INTERFACES_MAX} vifs, which is the most: detach one first"
    with pytest.raises(HypercallError, match=text) as refusal:
        attach("one", "")
    assert refusal.value.errno == errno.ENOSPC
    detach("one", 3)
    attach("one", "")
    assert interface(cluster, one, 3) == b"eth3" and len(vifs(one)) == INTERFACES_MAX


def test_an_interface_that_the_program_itself_has_removed_comes_again_with_its_vif(lan: Lan) -> None:
    do = "ip link set eth1 down; ip link set eth1 name other; ip link del other"
    lan.add("one", turns(do, INTERFACES_MAX + 1), "ip=10.7.0.1")
    cluster = lan.start()
    for turn in range(1, INTERFACES_MAX + 2):
        attach("one")
        says(cluster.domain("one"), "went", turn)
        detach("one")


@pytest.mark.skipif(os.geteuid() != 0, reason="everything else here is as nobody already")
def test_all_of_it_holds_without_root() -> None:
    told = passes_as_nobody_with_tap(Path(__file__), timeout_s=580)
    assert "passed" in told and not re.search(r"\bfailed", told), told
