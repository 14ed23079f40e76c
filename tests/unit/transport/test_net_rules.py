"""A network's rules: what a line means, and which lines are none."""

from ipaddress import ip_network

import pytest

from hvd.transport.net_rules import BadRule, Rule, parse_rule


def test_a_line_says_what_a_packet_must_be():
    line = ("deny from=ivi to=web mac=0:16:3e:0:0:1 to-mac=ff:ff:ff:ff:ff:ff ether=ipv4 ip=10.0.0.0/8 to-ip=10.1.2.3 "
            "proto=tcp port=1024-65535 to-port=22")  # fmt: skip
    assert parse_rule(line) == Rule(
        False, "ivi", "web", bytes.fromhex("00163e000001"), b"\xff" * 6, 0x0800, ip_network("10.0.0.0/8"),
        ip_network("10.1.2.3/32"), 6, (1024, 65535), (22, 22),
    )  # fmt: skip
    assert parse_rule("allow") == Rule(True)
    assert parse_rule("allow ether=0x88cc").ether == 0x88CC
    assert parse_rule("allow proto=89").protocol == 89


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "begins with allow or deny"), ("drop", "begins with allow or deny"), ("allow tcp", "key=value"),
        ("allow colour=red", "key=value"), ("allow proto=tcp proto=udp", "twice"), ("allow proto=256", "up to 0xff"),
        ("allow ether=0", "up to 0xffff"), ("allow ip=10.0.0.1/8", "other bits are 0"), ("allow mac=00:16", "6 pairs"),
        ("allow port=80", "need proto"), ("allow proto=icmp port=80", "need proto"), ("allow from=", "names no domain"),
        ("allow proto=tcp port=0", "from 1 to 65535"), ("allow proto=tcp port=9-8", "from 1 to 65535"),
        ("allow ip=10.0.0.1 to-ip=fe80::1", "different versions"), ("allow ether=arp proto=tcp", "another type"),
        ("allow ether=ipv6 ip=10.0.0.1", "another type"), ("allow ; deny", "no semicolon"),
        ("allow " + "x" * 600, "512"), ("allow proto=1_0", "up to 0xff"), ("allow proto=+6", "up to 0xff"),
        ("allow ether=0x8_8cc", "up to 0xffff"), ("allow ether=0x8100", "behind the VLAN tag"),
        ("allow ether=0x88a8", "behind the VLAN tag"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_told_what_was_expected(line, said):
    with pytest.raises(BadRule, match=said):
        parse_rule(line)
