"""Networks in the tables: every vif has its network's rules, however and whenever it comes, or it does not come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.broker.store import StoreError
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId
from hvd.transport.messages import DeviceConfig, DomainConfig, NetworkConfig
from hvd.transport.packed_rules import unpack_rules

from .conftest import Board

RULES = ["allow ether=arp", "deny from=ivi proto=tcp to-port=22"]
CABIN = NetworkConfig("cabin", "net", 9000, False, False, RULES)
LAN = NetworkConfig("lan", "net", 1500, True, True, [], "tap0")
NET = DomId(1)


def vif(devid=0, bridge="cabin", **keys):
    mac = {"mac": f"00:16:3e:00:00:{devid + 1:02x}"}
    return DeviceConfig("vif", devid, "net", {**mac, "bridge": bridge, **keys}, mac)


@pytest.fixture
def board():
    made = Board(networks=[CABIN, LAN])
    made.boot("Domain-0")
    made.boot("net", driver_domain=True)
    return made


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def keys_of(board, dom, devid=0, end="backend"):
    path = f"/local/domain/1/backend/vif/{dom}/{devid}"
    if end == "frontend":
        path = f"/local/domain/{dom}/device/vif/{devid}"
    names = board.h.store.directory(DOM0, 0, path)
    return {name: board.h.store.read(DOM0, 0, f"{path}/{name}").decode() for name in names}


def created(board):
    return board.boot("guest", devices=[vif()])


def attached(board):
    dom = board.boot("guest")
    call(board, m.DomctlAttach(dom, vif()))
    return dom


def configured(board):
    dom = board.boot("guest", on_crash="restart")
    call(board, m.DomctlSetConfig(dom, DomainConfig("guest", "hvd:idle", devices=[vif()])))
    board.dies(dom)
    board.after(10**9)
    return dom


def of_a_spare(board):
    dom = board.boot("guest", spare=True, devices=[vif()])
    board.h.store.rm(DOM0, 0, f"/local/domain/1/backend/vif/{dom}")
    board.after(10**9)
    spare = board.h.domains[dom].spare
    board.h.started(dom, spare.incarnation, 999, board.now)
    board.h.spare_reports(dom, spare.incarnation, {}, "")
    board.dies(dom)
    board.after(10**9)
    assert board.h.domains[dom].incarnation == spare.incarnation
    return dom


@pytest.mark.parametrize("comes", [created, attached, configured, of_a_spare])
def test_a_vif_has_the_rules_of_its_network_and_what_it_left_unsaid_however_it_comes(board, comes):
    dom = comes(board)
    back, front = keys_of(board, dom), keys_of(board, dom, end="frontend")
    assert unpack_rules(back) == (RULES, False)
    assert (back["mtu"], front["mtu"], back["hvd-guard"]) == ("9000", "9000", "0")


def test_what_a_vif_says_of_itself_stands_but_for_rules(board):
    forged = {"hvd-default": "allow 0", "hvd-rules0": "allow", "hvd-rules7": "allow", "hvd-uplink": "x"}
    dom = board.boot("guest", devices=[vif(mtu="1400", **forged, **{"hvd-guard": "1"})])
    back = keys_of(board, dom)
    assert "hvd-uplink" not in back
    assert (back["mtu"], back["hvd-guard"]) == ("1400", "1")
    assert unpack_rules(back) == (RULES, False) and "hvd-rules7" not in back


def test_a_network_that_lets_everything_pass_says_so(board):
    assert unpack_rules(keys_of(board, board.boot("guest", devices=[vif(bridge="lan")]))) == ([], True)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (vif(bridge="cabn"), r"vif 0 of domain 'guest' names the network 'cabn', which is none; there are: cabin, lan"),
        (DeviceConfig("vif", 0, "net"), r"names the network 'xenbr0', which is none"),
        (replace(vif(), backend="Domain-0"), r"names 'Domain-0' as its backend; network 'cabin' is in 'net'"),
    ],
)
def test_a_vif_of_no_network_or_of_another_switch_is_refused_however_it_comes(board, device, text):
    dom = board.boot("guest")
    for message in (
        m.DomctlAttach(dom, device),
        m.DomctlSetConfig(dom, DomainConfig("guest", "hvd:idle", devices=[device])),
        m.DomctlCreate(DomainConfig("other", "hvd:idle", devices=[replace(device)])),
    ):
        with pytest.raises(Refused, match=text.replace("'guest'", r"'\w+'")):
            call(board, message)
    assert not board.h.domains[dom].config.devices and board.h.by_name("other") is None


def test_an_address_is_in_a_network_once(board):
    created(board)
    other = board.boot("other")
    with pytest.raises(Refused, match="another vif of network cabin has the address 00:16:3e:00:00:01"):
        call(board, m.DomctlAttach(other, vif()))
    with pytest.raises(Refused, match="has the address"):
        board.create("third", devices=[vif(1), replace(vif(1), devid=2)])
    call(board, m.DomctlAttach(other, vif(bridge="lan")))


def test_who_takes_the_place_of_one_that_is_kept_as_it_died_has_its_vif(board):
    dom = board.boot("guest", devices=[vif()], on_crash="rename-restart")
    board.dies(dom)
    board.after(10**9)
    successor = board.h.by_name("guest")
    assert successor is not None and successor.domid != dom
    assert unpack_rules(keys_of(board, successor.domid)) == (RULES, False)


def test_without_networks_every_bridge_is_one_and_a_vifs_keys_are_its_own():
    board = Board()
    board.boot("Domain-0")
    board.boot("net", driver_domain=True)
    back = keys_of(board, board.boot("guest", devices=[vif(bridge="any", **{"hvd-default": "deny 0"})]))
    assert back["bridge"] == "any" and back["hvd-default"] == "deny 0" and "mtu" not in back


def test_other_devices_are_of_no_network(board):
    dom = board.boot("guest", devices=[DeviceConfig("vbd", 0, "net", {"dev": "xvda"})])
    with pytest.raises(StoreError):
        keys_of(board, dom)
    assert [device.kind for device in board.h.domains[dom].config.devices] == ["vbd"]


def test_a_renamed_driver_domain_keeps_its_networks(board):
    call(board, m.DomctlRename(NET, "switch"))
    assert call(board, m.SysctlNetworks()) == {"cabin": "switch", "lan": "switch"}
    board.boot("guest", devices=[replace(vif(), backend="switch")])


def test_who_is_named_by_a_rule_keeps_his_name_and_nobody_takes_it(board):
    board.boot("ivi")
    other = board.boot("other")
    call(board, m.DomctlRename(other, "ivi2"))
    with pytest.raises(Refused, match="a rule of network cabin names ivi: ivi keeps its name"):
        call(board, m.DomctlRename(DomId(2), "cockpit"))
    call(board, m.DomctlDestroy(DomId(2)))
    board.dies(DomId(2))
    with pytest.raises(Refused, match="a rule of network cabin names ivi: ivi2 keeps its name"):
        call(board, m.DomctlRename(other, "ivi"))


def opened(board, caller, network):
    return handle(board.h, caller, m.PhysdevOpenUplink(network), board.now)


def test_a_driver_domain_is_handed_the_uplink_of_a_network_in_its_switch_and_nobody_else_is(board):
    guest = board.boot("guest", devices=[vif(bridge="lan")])
    assert keys_of(board, guest)["hvd-uplink"] == "tap0"
    answer = opened(board, NET, "lan")
    assert (answer.value, answer.descriptors) == (1500, (("uplink:tap0", 0),))
    for caller, network, text in (
        (guest, "lan", "not in the switch of domain 'guest'"), (DOM0, "lan", "not in the switch of domain 'Domain-0'"),
        (NET, "none", "not in the switch"), (NET, "cabin", "network 'cabin' has no uplink"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=text):
            opened(board, caller, network)


def test_no_domain_is_called_as_rules_call_an_uplink(board):
    guest = board.boot("guest")
    for message in (m.DomctlCreate(DomainConfig("uplink", "hvd:idle")), m.DomctlRename(guest, "uplink")):
        with pytest.raises(Refused, match="'uplink' is what rules call a network's uplink"):
            call(board, message)
    without = Board(networks=[CABIN])
    without.boot("Domain-0")
    without.boot("uplink")


def test_a_network_is_told_as_the_file_has_it(board):
    assert call(board, m.SysctlNetwork("cabin")) == {
        "name": "cabin", "backend": "net", "mtu": 9000, "antispoof": False, "default": "deny", "rules": RULES,
        "uplink": None,
    }  # fmt: skip
    assert call(board, m.SysctlNetwork("lan"))["uplink"] == "tap0"
    with pytest.raises(Refused, match="the cluster has no network 'cabn'"):
        call(board, m.SysctlNetwork("cabn"))


def test_vifs_are_told_with_what_holds_for_them_now(board):
    ivi = board.boot("ivi", devices=[vif(rate="1000,50000", ip="10.0.0.1 fd00::1", **{"hvd-trunk": "7:9"})])
    web = board.boot("web", devices=[DeviceConfig("vbd", 0, "net"), vif(1, bridge="lan", **{"hvd-vlan": "3"})])
    call(board, m.StoreWrite(0, f"/local/domain/1/backend/vif/{ivi}/0/rate", b"2000,50000"))
    call(board, m.StoreWrite(0, f"/local/domain/1/backend/vif/{web}/1/hvd-link", b"down"))
    one, other = call(board, m.SysctlVifs(DOM0))["rows"]
    assert one == {
        "domid": ivi, "name": "ivi", "devid": 0, "network": "cabin", "backend": "net", "mac": "00:16:3e:00:00:01",
        "mtu": 9000, "ip": ["10.0.0.1", "fd00::1"], "rate": [2000, 50000], "vlan": None, "trunk": [7, 9],
        "antispoof": False, "link": "up", "state": "initialising",
    }  # fmt: skip
    assert [other[name] for name in ("domid", "network", "vlan", "rate", "antispoof", "link")] == [
        web, "lan", 3, None, True, "down"]  # fmt: skip


@pytest.mark.parametrize("forged", [b"x", b"1", b"1,2,3", b"9" * 40 + b",1", "\u0661,1".encode(), b"\xff"])
def test_what_a_driver_domain_writes_of_a_vif_breaks_no_listing(board, forged):
    dom = board.boot("guest", devices=[vif(rate="1,1")])
    handle(board.h, NET, m.StoreWrite(0, f"backend/vif/{dom}/0/rate", forged), board.now)
    handle(board.h, dom, m.StoreWrite(0, "device/vif/0/state", forged), board.now)
    (row,) = call(board, m.SysctlVifs(DOM0))["rows"]
    assert row["rate"] is None and row["state"] in (None, "initialising")


def test_what_a_toolstack_has_written_that_makes_no_sense_breaks_no_listing(board):
    board.boot("guest", devices=[vif(mtu="much", rate="x", **{"hvd-vlan": "-1", "hvd-trunk": "7:x::9"})])
    (row,) = call(board, m.SysctlVifs(DOM0))["rows"]
    assert [row[name] for name in ("mtu", "rate", "vlan", "trunk")] == [None, None, None, [7, 9]]


def test_a_vif_that_is_not_plugged_in_yet_is_told_as_its_domains_next_start_makes_it(board):
    dom = board.boot("guest")
    call(board, m.DomctlSetConfig(dom, DomainConfig("guest", "hvd:idle", devices=[vif(rate="1,1")])))
    (row,) = call(board, m.SysctlVifs(DOM0))["rows"]
    assert row["rate"] == [1, 1] and row["state"] is None
