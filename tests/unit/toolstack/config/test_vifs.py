"""xl's vif line, its TOML twin, and the device that either becomes; networks, and what vifs take from them."""

import re

import pytest

from hvd.toolstack.config.problems import Report
from hvd.toolstack.config.vifs import Owner, read_vif, vif_line
from hvd.transport.limits import NETWORKS_MAX
from hvd.transport.messages import NetworkConfig
from hvd.transport.protocols.net import parse_mac

GUEST = '[[domain]]\nname = "ivi"\nkernel = "guest.py"\n'
SWITCH = '[[domain]]\nname = "net"\nkernel = "hvd:driver_domain"\ndriver_domain = true\n'
UPLINK = 'uplink = "tap0"\n'
LONG = ("deny from=net to=net mac=00:16:3e:00:00:01 to-mac=00:16:3e:00:00:02 ether=ipv6 ip=fd00:1:2:3:4:5:6:7 "
        "proto=tcp port=10000-20000 to-port=10000-20000")  # fmt: skip
CABIN = '[[network]]\nname = "cabin"\nbackend = "net"\n'


def read(text, index=0, *, program=False):
    report = Report("test", "")
    vif = read_vif(report, ("vif", index), text, Owner("ivi", index, program), {})
    return vif, [f"{told.key}: expected {told.expected}, found {told.found}" for told in report.problems()]


def device(text, index=0, *, program=False):
    vif, problems = read(text, index, program=program)
    assert not problems, problems
    return vif.config


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("", {}),
        ("mac=00:16:3e:01:02:03,bridge=cabin", {"mac": "00:16:3e:01:02:03", "bridge": "cabin"}),
        ("ip=10.0.0.11 ,mac=00:16:3E:4A:21:07, bridge=xenbr0 ",
         {"ip": "10.0.0.11", "mac": "00:16:3E:4A:21:07", "bridge": "xenbr0"}),
        ("devid=7,mtu=9000,antispoof=0", {"devid": 7, "mtu": 9000, "antispoof": False}),
    ],
)  # fmt: skip
def test_a_line_is_its_keys(line, keys):
    report = Report("test", "")
    assert vif_line(report, (), line) == keys
    assert not report.problems()


@pytest.mark.parametrize("word", ["trusted", "untrusted"])
def test_advice_to_xens_frontends_is_left_out_and_warned_of(word):
    report = Report("guest.cfg", "", {("vif", 0): 7})
    assert vif_line(report, ("vif", 0), f"bridge=cabin, {word}") == {"bridge": "cabin"}
    assert report.warnings() == (f"guest.cfg:7: vif[0] does without {word}: it is advice to Xen's drivers",)


def test_an_older_word_of_xls_means_the_newer_one():
    assert device("netdev=eth1").backend_keys["gatewaydev"] == "eth1"


def test_a_vif_is_written_as_xl_writes_it():
    config = device("mac=00:16:3E:1:2:3,bridge=cabin,rate=10Mb/s@20ms,ip=10.0.0.1 fe80::1,vifname=v,script=vif-bridge")
    assert (config.kind, config.devid, config.backend) == ("vif", 0, "Domain-0")
    assert config.backend_keys == {
        "mac": "00:16:3e:01:02:03", "bridge": "cabin", "handle": "0", "rate": "25000,20000",
        "ip": "10.0.0.1 fe80::1", "vifname": "v", "script": "vif-bridge",
    }  # fmt: skip
    assert config.frontend_keys == {"mac": "00:16:3e:01:02:03", "ip": "10.0.0.1 fe80::1"}


def test_an_address_may_have_a_prefix_which_is_an_interfaces_affair_and_a_gateway_beside_it():
    config = device("ip=10.1.0.2/16  fd00::2/48,gateway=10.1.255.254 fd00::1")
    assert config.backend_keys["ip"] == "10.1.0.2 fd00::2" and "hvd-gateway" not in config.backend_keys
    assert config.frontend_keys["ip"] == "10.1.0.2/16 fd00::2/48"
    assert config.frontend_keys["hvd-gateway"] == "10.1.255.254 fd00::1"
    assert device("ip=10.0.0.2,gateway=10.0.0.1").frontend_keys["hvd-gateway"] == "10.0.0.1"
    assert device("gateway=fe80::1").frontend_keys["hvd-gateway"] == "fe80::1"


@pytest.mark.parametrize(("line", "program", "written"), [
    ("", True, "1"), ("", False, None), ("offload=0", True, None), ("offload=1", False, "1"),
])  # fmt: skip
def test_checksums_and_segments_are_left_to_others_by_programs_unless_told(line, program, written):
    assert device(line, program=program).frontend_keys.get("hvd-offload") == written


def test_a_program_has_one_queue():
    assert read("queues=2")[1] == []
    assert read("queues=2", program=True)[1] == ["vif[0].queues: expected a whole number from 1 to 1, found 2"]


def test_whether_a_guest_is_a_program_its_kernel_says(cluster):
    program = GUEST.replace("guest.py", "/bin/sh")
    keys = [cluster(text + 'vif = [""]\n').domain("ivi").devices[0].frontend_keys for text in (GUEST, program)]
    assert ["hvd-offload" in each for each in keys] == [False, True]


@pytest.mark.parametrize(
    ("rate", "written"),
    [
        ("10Mb/s", "62500,50000"), ("250KB/s", "12500,50000"), ("1MB/s@20ms", "20000,20000"),
        ("1GB/s@1s", "1000000000,1000000"),
        ("800b/s@1s", "100,1000000"), ("1000Mb/s@500us", "62500,500"),
    ],
)  # fmt: skip
def test_a_rate_is_bytes_in_each_interval(rate, written):
    assert device(f"rate={rate}").backend_keys["rate"] == written


def test_who_is_given_no_address_has_one_of_xens_that_stays_the_same():
    macs = [device("", index).backend_keys["mac"] for index in (0, 1, 0)]
    assert macs[0] == macs[2] != macs[1]
    assert all(mac.startswith("00:16:3e:") and parse_mac(mac)[3] < 0x80 for mac in macs)


def test_vlans_stand_behind_the_bridge_as_in_xls_open_vswitch_script():
    assert device("bridge=cabin.7").backend_keys["hvd-vlan"] == "7"
    keys = device("bridge=cabin:10:20").backend_keys
    assert keys["bridge"] == "cabin" and keys["hvd-trunk"] == "10:20" and "hvd-vlan" not in keys
    assert device("bridge=cabin.1:10").backend_keys["hvd-trunk"] == "10"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mac=01:00:5e:00:00:01", "mac: expected the MAC address of a station"),
        ("mac=00:16:3e", "mac: expected the MAC address of a station"),
        ("mac=00:16:3e:+1:00:01", "mac: expected the MAC address of a station"),
        ("rate=10MB", "rate: expected a rate as 10Mb/s"), ("rate=1Mb/s@0ms", "rate: expected a rate"),
        ("rate=9999GB/s@999s", "of 1 to 4294967295 bytes in each interval"),
        ("bridge=a.4095", "bridge: expected a network"), ("bridge=a.0", "bridge: expected a network"),
        ("ip=10.0.0.300", "ip: expected at most 16"),
        ("ip=10.0.0.1/33", "ip: expected at most 16"), ("ip=10.0.0.2,gateway=10.0.1.1", "gateway: expected an IPv4"),
        ("gateway=10.0.0.1", "gateway: expected an IPv4"), ("ip=10.0.0.2,gateway=10.0.0.2", "gateway: expected an"),
        ("ip=10.0.0.2,gateway=10.0.0.1 10.0.0.3", "gateway: expected"), ("gateway=router", "gateway: expected an IPv4"),
        ("ip=" + "10.0.0.1 " * 17, "ip: expected at most 16"),
        ("mtu=9001", "mtu: expected a whole number from 68 to 9000"),
        ("devid=-1", "devid: expected a whole number"), ("colour=red", "colour"), ("nonsense", "expected key=value"),
        ("mac=00:16:3e:00:00:01,mac=00:16:3e:00:00:02", "expected mac once"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_was_expected(line, said):
    _, problems = read(line)
    assert len(problems) == 1 and said in problems[0], problems


def test_a_domains_vifs_are_lines_or_tables(cluster):
    lines = cluster(SWITCH + GUEST + 'vif = ["bridge=a,backend=net", ""]\n').domain("ivi")
    tables = cluster(SWITCH + GUEST + '[[domain.vif]]\nbridge = "a"\nbackend = "net"\n[[domain.vif]]\n').domain("ivi")
    assert lines.devices == tables.devices
    assert [(each.devid, each.backend) for each in lines.devices] == [(0, "net"), (1, "Domain-0")]
    assert cluster(SWITCH + GUEST + 'vif = ["backend=net"]\n').start_order == ("net", "ivi")


def test_a_vif_says_what_is_its_own_and_leaves_the_rest_to_its_network():
    assert {"mtu", "hvd-guard"} & device("").backend_keys.keys() == set()
    keys = device("mtu=9000,antispoof=1")
    assert keys.backend_keys["mtu"] == keys.frontend_keys["mtu"] == "9000" and keys.backend_keys["hvd-guard"] == "1"
    assert device("antispoof=0").backend_keys["hvd-guard"] == "0"


def test_networks_are_read_for_the_hypervisor_and_a_vif_is_in_its_networks_switch(cluster):
    said = 'mtu = 9000\ndefault = "deny"\nrules = ["allow  ether=arp", "deny from=ivi proto=tcp to-port=22"]\n'
    read = cluster(CABIN + said + SWITCH + GUEST + 'vif = [""]\n')
    rules = ["allow ether=arp", "deny from=ivi proto=tcp to-port=22"]
    assert read.networks == (NetworkConfig("cabin", "net", 9000, True, False, rules),)
    (vif,) = read.domain("ivi").devices
    assert (vif.backend, vif.backend_keys["bridge"]) == ("net", "cabin")


def test_an_uplink_is_a_device_of_the_host_that_rules_may_name(cluster):
    read = cluster(CABIN + UPLINK + 'rules = ["deny from=uplink to=net", "deny to=uplink"]\n' + SWITCH)
    assert read.networks[0].uplink == "tap0"
    assert cluster(GUEST.replace("ivi", "uplink")).domain("uplink")


def test_a_vif_that_joins_a_cluster_is_of_one_of_its_networks():
    report = Report("test", "")
    vif = read_vif(report, (), "bridge=cabin", Owner("ivi", 0), {"cabin": "net", "lan": "Domain-0"})
    assert vif is not None and vif.config.backend == "net" and not report.problems()
    read_vif(report, (), "bridge=cabn", Owner("ivi", 0), {"cabin": "net", "lan": "Domain-0"})
    assert [problem.expected for problem in report.problems()] == ["a network of the cluster (cabin, lan)"]


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        (CABIN + SWITCH + GUEST + 'vif = ["bridge=cabn"]\n', "domain[1].vif[0].bridge", "cabn"),
        (CABIN + SWITCH + GUEST + 'vif = ["backend=dom0"]\n', "domain[1].vif[0].backend", "Domain-0"),
        (CABIN + CABIN + SWITCH, "network[1].name", "cabin"),
        (CABIN + 'rules = ["permit"]\n' + SWITCH, "network[0].rules[0]", "begins with allow or deny"),
        (CABIN + 'rules = ["deny from=nobody"]\n' + SWITCH, "network[0].rules[0]", "nobody"),
        (CABIN + 'default = "drop"\n' + SWITCH, "network[0].default", "drop"),
        (CABIN + f"rules = {[LONG] * 256}\n" + SWITCH, "network[0].rules", str(256 * len(LONG))),
        ("".join(CABIN.replace("cabin", f"n{n}") for n in range(NETWORKS_MAX + 1)) + SWITCH, "network", "257"),
        (CABIN + 'uplink = "a/b"\n' + SWITCH, "network[0].uplink", "a/b"),
        (CABIN + 'uplink = "sixteen-letters-"\n' + SWITCH, "network[0].uplink", "sixteen"),
        (CABIN + UPLINK + CABIN.replace("cabin", "lan") + UPLINK + SWITCH, "network[1].uplink", "tap0"),
        (CABIN + UPLINK + SWITCH + GUEST.replace("ivi", "uplink"), "domain[1].name", "uplink"),
        (CABIN + 'rules = ["deny from=uplink"]\n' + SWITCH, "network[0].rules[0]", "uplink"),
        (CABIN.replace('"net"', '"uplink"') + UPLINK + SWITCH, "network[0].backend", "uplink"),
        (CABIN, "network[0].backend", "net"),
        (CABIN + GUEST.replace("ivi", "net"), "network[0].backend", "net"),
        (SWITCH + GUEST + 'vif = ["mac=0:16:3e:0:0:1", "mac=0:16:3e:0:0:1"]\n', "domain[1].vif[1].mac", "00:01"),
        (GUEST + '[[domain.device]]\ntype = "vif"\n', "domain[0].device[0].type", "vif"),
    ],
)  # fmt: skip
def test_what_does_not_hold_together_is_named_at_its_place(problem, text, key, found):
    told = problem(text)
    assert re.sub(r' "\w+"', "", told.key).startswith(key) and found in f"{told.found} {told.hint}", told
