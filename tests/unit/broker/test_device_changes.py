"""Another configuration for a domain with vifs: a rate at once, all else when they are not plugged in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.broker.store import StoreError
from hvd.transport import messages as m
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig, NetworkConfig

from .conftest import Board

CABIN = NetworkConfig("cabin", "net", 1500, True, False, ["allow ether=arp"])
LAN = NetworkConfig("lan", "net", 1400, True, True, [])


def vif(devid=0, front=None, **keys):
    mac = {"mac": f"00:16:3e:00:00:{devid + 1:02x}"}
    return DeviceConfig("vif", devid, "net", {**mac, "bridge": "cabin", **keys}, {**mac, **(front or {})})


@pytest.fixture
def board():
    made = Board(networks=[CABIN, LAN])
    made.boot("Domain-0")
    made.boot("net", driver_domain=True)
    made.boot("other", driver_domain=True)
    return made


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def configure(board, dom, *devices, **fields):
    call(board, m.DomctlSetConfig(dom, replace(board.h.domains[dom].config, devices=list(devices), **fields)))


def key(board, dom, name, devid=0, kind="vif"):
    try:
        return board.h.store.read(DOM0, 0, f"/local/domain/1/backend/{kind}/{dom}/{devid}/{name}").decode()
    except StoreError:
        return None


def test_a_rate_holds_at_once_and_everything_of_the_others_stays(board):
    dom = board.boot("guest", devices=[vif(rate="1,1"), vif(1)])
    board.h.store.write(DOM0, 0, f"/local/domain/1/backend/vif/{dom}/0/hvd-link", b"down")
    configure(board, dom, vif(rate="2,2"), vif(1, rate="3,3"), memory=80)
    assert [key(board, dom, "rate", devid) for devid in (0, 1)] == ["2,2", "3,3"]
    assert key(board, dom, "hvd-link") == "down", "the directory is the one that it was"
    assert board.h.domains[dom].config.memory == 80
    configure(board, dom, vif(), vif(1, rate="3,3"))
    assert [key(board, dom, "rate", devid) for devid in (0, 1)] == [None, "3,3"]


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (vif(mac="00:16:3e:00:00:0a"), "another mac for it"),
        (vif(bridge="lan"), "another bridge, hvd-default, hvd-rules0, mtu for it"),
        (vif(mtu="1400", front={"mtu": "1400"}), "another mtu for it"),
        (vif(**{"hvd-vlan": "7", "hvd-guard": "0"}), "another antispoof, bridge for it"),
        (vif(front={"hvd-gateway": "10.0.0.1"}, ip="10.0.0.2"), "another gateway, ip for it"),
    ],
)
def test_what_else_it_says_of_a_vif_that_is_plugged_in_is_refused_and_nothing_is_changed(board, device, text):
    dom = board.boot("guest", devices=[vif(), vif(1, rate="1,1")])
    before = board.h.domains[dom].config
    pattern = f"vif 0 of domain guest is plugged in, and the configuration has {text}: `hvd network-detach guest 0`"
    with pytest.raises(Refused, match=pattern):
        configure(board, dom, vif(1, rate="2,2"), device, memory=80)
    assert board.h.domains[dom].config == before and key(board, dom, "rate", 1) == "1,1"


def test_a_vif_that_is_plugged_in_is_not_forgotten(board):
    dom = board.boot("guest", devices=[vif()])
    with pytest.raises(Refused, match="the configuration has none of that number: `hvd network-detach guest 0` first"):
        configure(board, dom)
    assert [device.devid for device in board.h.domains[dom].config.devices] == [0]


def test_a_vif_cannot_move_to_another_switch_while_it_is_plugged_in():
    board = Board()
    for name in ("Domain-0", "net", "other"):
        board.boot(name, driver_domain=True)
    dom = board.boot("guest", devices=[vif()])
    with pytest.raises(Refused, match="another backend for it"):
        configure(board, dom, replace(vif(), backend="other"))


def test_what_is_not_plugged_in_yet_may_be_anything_and_is_made_at_the_next_start(board):
    dom = board.boot("guest", on_crash="restart")
    configure(board, dom, vif(rate="1,1"))
    configure(board, dom, vif(mtu="1400", rate="2,2"))
    assert key(board, dom, "mtu") is None
    board.dies(dom)
    board.after(10**9)
    assert key(board, dom, "mtu") == "1400" and key(board, dom, "rate") == "2,2"


def test_one_that_is_configured_and_not_plugged_in_yet_is_taken_back_at_once(board):
    dom = board.boot("guest")
    configure(board, dom, vif())
    call(board, m.DomctlDetach(dom, "vif", 0, False))
    assert not board.h.domains[dom].config.devices and key(board, dom, "online") is None


def test_a_domain_that_does_not_run_starts_with_all_that_its_configuration_says_and_no_more(board):
    disk = DeviceConfig("vbd", 7, "net", {"params": "/a"})
    dom = board.boot("guest", devices=[vif(rate="1,1"), vif(1), vif(2), disk], on_crash="preserve")
    board.h.store.write(DOM0, 0, f"/local/domain/1/backend/vif/{dom}/2/feature-x", b"1")
    board.dies(dom)
    disk = replace(disk, backend_keys={"params": "/b"})
    configure(board, dom, vif(bridge="lan", mac="00:16:3e:00:00:0a"), vif(2), disk)
    assert key(board, dom, "mac") is None and key(board, dom, "mac", 1) is None, "its backends hear that it has gone"
    call(board, m.DomctlShutdown(dom, reboot=True, grace_ms=0))
    board.after(10**9)
    assert [key(board, dom, name) for name in ("mac", "mtu", "rate")] == ["00:16:3e:00:00:0a", "1400", None]
    assert key(board, dom, "mac", 1) is None and key(board, dom, "feature-x", 2) == "1"
    assert key(board, dom, "params", 7, "vbd") == "/b"


def test_a_program_has_so_many_vifs(board):
    dom = board.boot("guest", kernel="/bin/sh", devices=[vif(n) for n in range(8)])
    with pytest.raises(Refused, match="domain guest is a program and has 8 vifs, which is the most: detach one first"):
        call(board, m.DomctlAttach(dom, vif(8)))
    call(board, m.DomctlAttach(dom, DeviceConfig("vbd", 8, "net")))
    call(board, m.DomctlDetach(dom, "vif", 3, True))
    call(board, m.DomctlAttach(dom, vif(8)))
